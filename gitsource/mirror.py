"""Reading a bare mirror: one revision's files, by a `git cat-file` that lives as long as the read.

What changed between two revisions is asked for, so that a small change in a large repo is small.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from gitsource.tree import Entry
from reconciler.core.definitions import Commit
from reconciler.core.errors import Retryable, Stalled

Git = Callable[[list[str]], bytes]
"""Runs git in the mirror with these words to its end; raises Retryable."""

FORMAT = "--format=%H%x00%an%x00%ct%x00%s"
PACKAGES = "/packages/"
READ = ("instances/", "shared/", "teams/")


class Blobs:
    """Contents of git objects, while entered; killed after `timeout` seconds, come what may."""

    def __init__(self, mirror: Path, environment: dict[str, str], timeout: float) -> None:
        self._process = subprocess.Popen(
            ["git", "-C", str(mirror), "cat-file", "--batch-command"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._timer = threading.Timer(timeout, self._process.kill)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return int(self._ask("info", name)[2])

    def read(self, name: str) -> bytes:
        """An object's content."""
        size = int(self._ask("contents", name)[2])
        assert self._process.stdout is not None
        data = self._process.stdout.read(size + 1)
        if len(data) != size + 1:
            raise _broken(name)
        return data[:size]

    def _ask(self, verb: str, name: str) -> list[bytes]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{verb} {name}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise _broken(name) from error
        words = self._process.stdout.readline().split()
        if len(words) != 3:
            raise _broken(name)
        return words


def _broken(name: str) -> Retryable:
    return Retryable("MirrorDamaged", f"git object {name[:10]} cannot be read")


class Files:
    """The files of the revision that was taken last; a `Tree` while blobs are at hand."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[str, Entry] = {}
        self._trees: dict[str, str] = {}
        self._paths: list[str] | None = None
        self._git: Git | None = None
        self._blobs: Blobs | None = None
        self._head = ""

    def take_all(self, git: Git, blobs: Blobs, head: str) -> None:
        """Take every file of a revision."""
        self._git, self._blobs, self._head = git, blobs, head
        self._entries, self._trees, self._paths = {}, {}, None
        for line in (
            git(["ls-tree", "-r", "-t", "-l", "-z", head]).decode(errors="replace").split("\0")
        ):
            if not line:
                continue
            described, path = line.split("\t", 1)
            mode, kind, name, size = described.split()
            if kind == "tree":
                self._trees[path] = name
            else:
                self._entries[path] = Entry(path, mode, name, int(size) if size != "-" else 0)

    def take_changes(self, git: Git, blobs: Blobs, old: str, head: str) -> list[str]:
        """Take what differs between two revisions, the older of which is held; its paths."""
        self._git, self._blobs, self._head = git, blobs, head
        words = ["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", old, head]
        fields = git(words).decode(errors="replace").split("\0")
        changed: list[str] = []
        for described, path in zip(fields[::2], fields[1::2], strict=False):
            _, mode, _, name, status = described.split()
            changed.append(path)
            if status == "D":
                self._entries.pop(path, None)
            else:
                size = 0 if mode == "160000" else blobs.size(name)
                self._entries[path] = Entry(path, mode, name, size)
            folder = path.rpartition("/")[0]
            while folder:
                self._trees.pop(folder, None)
                folder = folder.rpartition("/")[0]
        self._paths = None
        return changed

    def leave(self) -> None:
        """Nothing more is read until the next revision is taken."""
        self._git = self._blobs = None

    def entries(self) -> dict[str, Entry]:
        """Every file by its path."""
        return self._entries

    def paths(self) -> list[str]:
        """The path of every file, sorted."""
        if self._paths is None:
            self._paths = sorted(self._entries)
        return self._paths

    def read(self, entry: Entry) -> bytes:
        """The content of a file that a definition may name."""
        path = entry.path
        if entry.size > self._limit or not path.startswith(READ) or PACKAGES in path:
            raise Stalled("TooLarge", f"{path} is not read: it is too large, or in packages/")
        assert self._blobs is not None, "files are read while a revision is taken"
        return self._blobs.read(entry.blob)

    def tree_id(self, path: str) -> str:
        """Git's id of the directory `path`; "" when there is none."""
        if path not in self._trees:
            assert self._git is not None, "files are read while a revision is taken"
            line = self._git(["ls-tree", "-d", "-z", self._head, "--", path]).decode()
            self._trees[path] = line.split()[2] if line else ""
        return self._trees[path]


def commit_of(git: Git, head: str) -> Commit:
    """Who made a commit, and its first line."""
    words = ["show", "-s", "--no-show-signature", FORMAT, head]
    text = git(words).decode(errors="replace").rstrip("\n")
    revision, author, at, subject = text.split("\0", 3)
    return Commit(revision, author[:200], subject[:500], float(at))
