"""Observation of the share, the bases and running processes."""

from __future__ import annotations

import logging

from reconciler.core.definitions import Instance
from reconciler.core.drift import Deviation
from reconciler.core.errors import GroundcrewError
from reconciler.core.loaded import Loaded
from reconciler.core.model import InstanceRecord
from reconciler.daemon.deviations import deviations
from reconciler.daemon.wiring import Wiring
from reconciler.share.view import View, release

log = logging.getLogger(__name__)

LOADER = "loader"  # the named text of the records that holds which release's loader is installed


class Outside:
    """Looks at what the daemon is wired to; see `observer`."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._view = View(wiring.share)
        self._is_installed = False

    def mark(self, instance: Instance) -> str:
        """Return the driver's fingerprint of an instance's base, or "" if it is unknown."""
        return self._wiring.driver(instance).fingerprint(instance)

    def is_verified(self, build: str, runtime_key: str) -> bool:
        """Return True if the share holds a build complete and verified for a runtime."""
        return self._wiring.share.verified(build, runtime_key)

    def is_present(self, build: str, runtime_key: str) -> bool:
        """Return True if it seems to, at a cheap look."""
        return self._wiring.share.is_present(build, runtime_key)

    def require_share(self) -> None:
        """Raise if the share is missing."""
        self._wiring.share.require()
        if not self._is_installed:
            self._install_loaders()

    def _install_loaders(self) -> None:
        """Give every instance this release's loader: what an earlier one installed is no drift.

        Once for each release; what differs later was changed by somebody.
        """
        if self._wiring.store.named(LOADER) != release():
            for name in self._wiring.share.instances_with_loader():
                self._wiring.check()
                self._wiring.share.install_loader(name)
            self._wiring.store.name(LOADER, release())
        self._is_installed = True

    def deviations(self, record: InstanceRecord, *, has_build: bool) -> tuple[Deviation, ...]:
        """Return the differences between the share and the record of an instance."""
        return deviations(record, self._view.look(record.name), has_build=has_build)

    def processes(self, record: InstanceRecord) -> tuple[Loaded, ...] | None:
        """Return what the components of an instance have loaded; None if that cannot be seen."""
        load_into = record.current.load_into or record.definition.load_into
        try:
            return self._wiring.driver(record.definition).processes(record.definition, load_into)
        except GroundcrewError:
            raise
        except Exception:
            log.exception("looking at the processes of %s", record.name)
            return None
