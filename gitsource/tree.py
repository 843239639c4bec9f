"""Files of a revision, from a bare mirror or a plain checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gitsource import worktree

MAX_FILES = 200_000  # of a revision, in the folders that are read; folders count too


@dataclass(frozen=True, slots=True)
class Most:
    """Limits of the listing of a team's folder: rows, bytes of paths, and nested folders."""

    files: int = 50_000
    size: int = 16 << 20
    depth: int = 100


TEAM_LISTING = Most()


@dataclass(frozen=True, slots=True)
class Entry:
    """File with its git `mode` (100644, 100755, 120000 for a symlink, 160000 for a submodule)."""

    path: str
    mode: str
    blob: str
    size: int


class Tree(Protocol):
    """Files of one revision."""

    def entries(self) -> dict[str, Entry]:
        """Return every file by its path."""

    def read(self, entry: Entry) -> bytes:
        """Return the content of a file; the caller has checked its size."""

    def is_pointer(self, entry: Entry) -> bool:
        """Return True if a file is a pointer of Git LFS and not the content itself."""

    def tree_id(self, path: str) -> str:
        """Return an id that changes with anything below the directory `path`; "" if missing."""

    def paths(self) -> list[str]:
        """Return the path of every file, sorted."""

    def unlisted(self) -> tuple[str, ...]:
        """Return the teams whose files are not listed, because there are too many."""


def team_of(path: str) -> str:
    """Return the team that owns the file at `path`, or "" for the platform's."""
    folder, _, rest = path.partition("/")
    return rest.partition("/")[0] if folder == "teams" else ""


def below(tree: Tree, path: str) -> list[Entry]:
    """Return the files below a directory."""
    paths, entries = tree.paths(), tree.entries()
    return [entries[p] for p in paths[_span(paths, path)]]


def count_below(tree: Tree, path: str) -> int:
    """Return the number of files below a directory."""
    span = _span(tree.paths(), path)
    return span.stop - span.start


def _span(paths: list[str], path: str) -> slice[int, int, None]:
    """Return where the files below a directory are in a sorted list of paths."""
    start = bisect_left(paths, f"{path}/")
    return slice(start, bisect_left(paths, f"{path}0", start))  # the character after "/"


class Checkout:
    """Plain directory, as in a team's own CI; in a git work tree, only the files that git sees."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries: dict[str, Entry] | None = None
        self._paths: list[str] = []
        self._pointers: set[str] | None = None

    def entries(self) -> dict[str, Entry]:
        """Return every file by its path; a symlink is returned as such, never followed."""
        if self._entries is None:
            names = worktree.listed(self.root)
            if names is None:
                entries = map(self._entry, self._walked())
            else:
                entries = map(self._entry, sorted(name.rstrip("/") for name in names))
            self._entries = {entry.path: entry for entry in entries if entry is not None}
        return self._entries

    def _walked(self) -> Iterator[str]:
        """Yield every file of a directory outside git, without Python's caches."""
        for folder, names, files in os.walk(self.root):
            names[:] = sorted(n for n in names if n not in (".git", "__pycache__"))
            links = [n for n in names if (Path(folder) / n).is_symlink()]
            for name in sorted(files) + links:
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def _entry(self, path: str) -> Entry | None:
        """Return the entry of a path, or None for a file that is deleted here."""
        try:
            info = (self.root / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(info.st_mode):  # a repository inside this one
            return Entry(path, "160000", path, 0)
        plain = "100755" if info.st_mode & 0o100 else "100644"
        return Entry(path, "120000" if stat.S_ISLNK(info.st_mode) else plain, path, info.st_size)

    def is_pointer(self, entry: Entry) -> bool:
        """Return True if git keeps a pointer of Git LFS for a file, whatever is checked out."""
        if self._pointers is None:
            self._pointers = worktree.pointers(self.root, self.entries())
        if entry.path in self._pointers:
            return True
        return entry.size <= worktree.POINTER_LIMIT and worktree.is_pointer(self.read(entry))

    def paths(self) -> list[str]:
        """Return the path of every file, sorted."""
        if not self._paths:
            self._paths = sorted(self.entries())
        return self._paths

    def unlisted(self) -> tuple[str, ...]:
        """Return no teams, because a user's own checkout has no limits."""
        return ()

    def read(self, entry: Entry) -> bytes:
        """Return the content of a file, or the target of a link."""
        path = self.root / entry.path
        if entry.mode == "120000":
            return os.fsencode(path.readlink())
        return b"" if entry.mode == "160000" else path.read_bytes()

    def tree_id(self, path: str) -> str:
        """Return a digest of what is below `path`: not git's, but it changes when git's would."""
        digest = hashlib.sha1(usedforsecurity=False)
        entries = below(self, path)
        if not entries:
            return ""
        for entry in entries:
            content = hashlib.sha256(self.read(entry)).hexdigest()
            row = f"{entry.mode} {entry.path} {content}\0"
            digest.update(row.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def copy(self, path: str, dest: Path) -> None:
        """Write what is below the directory `path` to `dest`, like an export from git."""
        for entry in below(self, path):
            target = dest / entry.path.removeprefix(f"{path}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / entry.path, target, follow_symlinks=False)
            target.chmod(0o755 if entry.mode == "100755" else 0o644)
