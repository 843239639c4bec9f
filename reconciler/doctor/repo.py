"""Check of the environments repo, which is read like the daemon does, into a temporary mirror."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gitsource.source import Source
from reconciler.core.addresses import shown
from reconciler.core.definitions import Definitions, Environment, Instance
from reconciler.core.errors import GroundcrewError
from reconciler.core.reasons import Reason
from reconciler.daemon.open_records import current
from reconciler.doctor.findings import Check, Finding, Level, good
from reconciler.settings import Settings

SHORT = 10  # digits of a revision


@dataclass(slots=True)
class Known:
    """Definitions that other checks use: from the repo, or else from the records."""

    environments: tuple[Environment, ...] = ()
    instances: tuple[Instance, ...] = ()
    read: bool = False


class Repo:
    """Reader of the repo, used once; afterwards `known` holds the definitions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.known = Known()

    @property
    def url(self) -> str:
        """The repo's address."""
        return shown(self._settings.git.url) or "git.url"

    def look(self) -> Iterator[Finding]:
        """Check that the repo can be reached and read. Raises what reading it raises."""
        with tempfile.TemporaryDirectory(prefix="groundcrew-doctor-") as folder:
            source = Source(self._settings.git, Path(folder), self._settings.secrets_dir)
            parsed = source.poll()
        assert parsed is not None, "a first poll reads"
        self._take(parsed)
        revision = parsed.commit.revision[:SHORT]
        counted = f"{len(parsed.environments)} environments and {len(parsed.instances)} instances"
        message = f"branch {self._settings.git.branch} at {revision} has {counted}"
        yield good(Check.GIT, self.url, message)
        if parsed.findings:
            first = parsed.findings[0]
            yield Finding(
                Check.GIT,
                self.url,
                Level.WARNING,
                Reason.DEFINITIONS_WRONG,
                f"{len(parsed.findings)} mistakes in the definitions; the first is at "
                f"{first.place}: {first.message}",
                "mend what `groundcrew validate` says in a checkout",
            )

    def _take(self, found: Definitions) -> None:
        self.known = Known(
            tuple(found.environments.values()), tuple(found.instances.values()), read=True
        )

    def remember(self) -> None:
        """Use the definitions in the records if the repo was not read."""
        if self.known.read:
            return
        try:
            records = current(self._settings)
        except GroundcrewError:
            return
        self.known = Known(
            tuple(r.definition for r in records.environments.values()),
            tuple(r.definition for r in records.instances.values()),
        )
