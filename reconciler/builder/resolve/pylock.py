"""Typed reader of a lock (pylock.toml).

uv wrote it in a executor where build scripts of the same team may run, so it may hold anything.
Digests and file names become paths in caches.
"""

from __future__ import annotations

from typing import Annotated, Any

from packaging.utils import NormalizedName, canonicalize_name
from pydantic import Field

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Document, Malformed, Rows, parse_toml
from reconciler.isolation import TooExpensive, read_for

LOCK_LIMIT = 32 << 20  # bytes

Name = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9._-]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Hashes(Document):
    """Hashes of a file, of which only SHA-256 is used."""

    sha256: Sha256


class LockedFile(Document):
    """Wheel or sdist in an index; without a name, its URL ends in it."""

    url: Annotated[str, Field(max_length=16 << 10)]
    hashes: Hashes
    name: str = ""

    @property
    def filename(self) -> str:
        """The name of the file."""
        return self.name or self.url.rsplit("/", 1)[-1]


class Directory(Document):
    """In-repo package, by its path in the repo."""

    path: str


class BuiltFrom(Document):
    """Tree of an in-repo package, and the SHA-256 of the wheel that was built from it."""

    tree: str = ""
    sha256: Sha256 | None = None


class Tool(Document):
    """Additions of Groundcrew to a package."""

    groundcrew: BuiltFrom = BuiltFrom()


class LockedPackage(Document):
    """Package in a lock."""

    name: Name
    version: Annotated[str, Field(max_length=512)] = ""
    wheels: Rows[LockedFile] = Field(default_factory=list)
    sdist: LockedFile | None = None
    directory: Directory | None = None
    archive: Any = None
    vcs: Any = None
    tool: Tool = Tool()

    @property
    def key(self) -> NormalizedName:
        """The normalised name."""
        return canonicalize_name(self.name)

    @property
    def address(self) -> str:
        """The kind of address that it comes from, instead of an index; "" if it does not."""
        kinds = {"archive": self.archive, "vcs": self.vcs, "directory": self.directory}
        return next((kind for kind, value in kinds.items() if value is not None), "")


class Pylock(Document):
    """Lock, as far as it is read back."""

    packages: Rows[LockedPackage] = Field(default_factory=list)


def read_lock(team: str, text: str) -> list[LockedPackage]:
    """Return the packages in a lock. Raises Stalled("LockUnreadable")."""
    try:
        return read_for(team, parse_toml, Pylock, text, "the lock", LOCK_LIMIT).packages
    except (Malformed, TooExpensive) as error:
        why = error.message if isinstance(error, TooExpensive) else str(error)
        raise Stalled(
            Reason.LOCK_UNREADABLE,
            f"{why}. uv does not write such a lock: only code that ran while it resolved can have "
            f"written it, so look at the packages that are built from source",
        ) from error
