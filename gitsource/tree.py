"""A revision's files, wherever they come from: a bare mirror, or a plain checkout."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MAX_FILES = 200_000  # of a revision, in the folders that are read; folders count too


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: `mode` as git writes it (100644, 100755, 120000 a symlink, 160000 a submodule)."""

    path: str
    mode: str
    blob: str
    size: int


class Tree(Protocol):
    """The files of one revision."""

    def entries(self) -> dict[str, Entry]:
        """Every file by its path."""

    def read(self, entry: Entry) -> bytes:
        """The content of a file; the caller has looked at its size."""

    def tree_id(self, path: str) -> str:
        """An id that changes with anything below the directory `path`; "" when there is none."""

    def paths(self) -> list[str]:
        """The path of every file, sorted."""


def below(tree: Tree, path: str) -> list[Entry]:
    """The files below a directory."""
    paths, entries = tree.paths(), tree.entries()
    start = bisect_left(paths, f"{path}/")
    end = bisect_left(paths, f"{path}0", start)  # the character after "/"
    return [entries[p] for p in paths[start:end]]


class Checkout:
    """A plain directory, as a team's own CI has it; `.git` and ignored caches are passed over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries: dict[str, Entry] | None = None
        self._paths: list[str] = []

    def entries(self) -> dict[str, Entry]:
        """Every file by its path; a symlink is told as one, never followed."""
        if self._entries is None:
            self._entries = {}
            for folder, names, files in os.walk(self.root):
                names[:] = sorted(n for n in names if n not in (".git", "__pycache__"))
                links = [n for n in names if (Path(folder) / n).is_symlink()]
                for name in sorted(files) + links:
                    self._add(Path(folder) / name)
        return self._entries

    def _add(self, file: Path) -> None:
        assert self._entries is not None, "entries() makes it"
        path = file.relative_to(self.root).as_posix()
        info = file.lstat()
        plain = "100755" if info.st_mode & 0o100 else "100644"
        mode = "120000" if file.is_symlink() else plain
        self._entries[path] = Entry(path, mode, path, info.st_size)

    def paths(self) -> list[str]:
        """The path of every file, sorted."""
        if not self._paths:
            self._paths = sorted(self.entries())
        return self._paths

    def read(self, entry: Entry) -> bytes:
        """The content of a file."""
        return (self.root / entry.path).read_bytes()

    def tree_id(self, path: str) -> str:
        """A digest of what is below `path`; not git's, but it changes as git's would."""
        digest = hashlib.sha1(usedforsecurity=False)
        found = below(self, path)
        if not found:
            return ""
        for entry in found:
            content = hashlib.sha256(self.read(entry)).hexdigest()
            digest.update(f"{entry.mode} {entry.path} {content}\0".encode())
        return digest.hexdigest()
