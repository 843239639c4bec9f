"""Small file systems that become full or read-only while a daemon uses them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILLER = "filler"


class Disk:
    """Separate file system at `path`, in memory, until `close`. Needs root."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        path.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))

    def close(self) -> None:
        """Remove the file system, even if it is in use."""
        _run("umount", "--lazy", str(self.path))

    @contextmanager
    def full(self, left: int) -> Iterator[None]:
        """Leave only `left` bytes free."""
        filler = self.path / FILLER
        try:
            with filler.open("wb") as file, suppress(OSError):
                space = os.statvfs(self.path)
                free = space.f_bavail * space.f_frsize
                os.posix_fallocate(file.fileno(), 0, max(1, free - left))
            yield
        finally:
            filler.unlink(missing_ok=True)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse everything that is written by name.

        A file system with open files cannot be made read-only; one that is mounted over it can.
        """
        _run("mount", "--bind", str(self.path), str(self.path))
        try:
            _run("mount", "-o", "remount,bind,ro", str(self.path))
            yield
        finally:
            _run("umount", "--lazy", str(self.path))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=60)
