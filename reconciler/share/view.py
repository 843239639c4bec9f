"""An instance's pointer and loader on the share, as they were last seen.

Files are read only when they are not the ones that were read before, so that a look costs a few
`stat` calls.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reconciler.share.atomic import translating
from reconciler.share.share import LOADER, Pointer, Share, loader_files

Mark = tuple[int, int, int] | None
"""Inode, time of change and size of a file; None where there is none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An instance's part of the share.

    `pointer` is None if there is none or it cannot be read; `is_there` tells which. `foreign` are
    the files of the loader that are missing or not those of this release.
    """

    pointer: Pointer | None
    is_there: bool
    has_loader: bool
    foreign: tuple[str, ...]


class View:
    """Looks at instances' parts of a share; one thread at a time for each instance."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._pointers: dict[str, tuple[Mark, Pointer | None]] = {}
        self._loaders: dict[str, tuple[tuple[Mark, ...], tuple[str, ...]]] = {}

    def look(self, instance: str) -> Seen:
        """Return what is there now; raises Retryable where that cannot be seen."""
        with translating(f"looking at the share of {instance}"):
            folder = self._share.instance_path(instance)
            mark = _mark(folder / "pointer.json")
            known = self._pointers.get(instance)
            if mark is None or known is None or known[0] != mark:
                known = self._pointers[instance] = (mark, self._share.pointer(instance))
            has_loader = (folder / "loader").is_dir()
            foreign = self._foreign(instance, folder / "loader")
        return Seen(known[1], mark is not None, has_loader, foreign)

    def _foreign(self, instance: str, folder: Path) -> tuple[str, ...]:
        marks = tuple(_mark(folder / name) for name in LOADER)
        known = self._loaders.get(instance)
        if known is None or known[0] != marks:
            wanted = loader_files()
            names = tuple(
                name
                for name, mark in zip(LOADER, marks, strict=True)
                if mark is None
                or mark[2] != len(wanted[name])
                or _read(folder / name) != wanted[name]
            )
            known = self._loaders[instance] = (marks, names)
        return known[1]


@cache
def release() -> str:
    """Return the digest of this release's loader."""
    digest = hashlib.sha256()
    for name, data in sorted(loader_files().items()):
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()


def _mark(path: Path) -> Mark:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
