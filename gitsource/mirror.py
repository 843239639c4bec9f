"""Reader of one revision in a bare mirror, by git processes that live as long as the read.

A revision is listed completely each time, row by row up to a limit: a few objects may represent
billions of files, and git keeps a whole difference in memory before it prints it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from gitsource.tree import MAX_FILES, TEAM_LISTING, Entry, Most, team_of
from gitsource.worktree import POINTER, POINTER_LIMIT, is_pointer
from reconciler.core.definitions import Commit
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason

Git = Callable[[list[str]], bytes]
"""Function that runs git in the mirror with these arguments to its end; raises Retryable."""

FORMAT = "--format=%H%x00%an%x00%ct%x00%s"
PACKAGES = "/packages/"
READ = ("instances/", "shared/", "teams/")
LISTING_LIMIT = 64 << 20  # bytes of all rows
UNLIMITED = Most(sys.maxsize, sys.maxsize, sys.maxsize)  # for the platform's own folders
ARGUMENTS = 1 << 20  # bytes of the folders that one git process is asked for
PIECE = 1 << 20  # bytes read at once
LATEST = 253_402_300_799  # seconds since the epoch, the end of the year 9999


class Running:
    """Git process in the mirror that runs while entered; killed after `timeout` seconds."""

    command: ClassVar[tuple[str, ...]]

    def __init__(
        self, mirror: Path, environment: dict[str, str], timeout: float, *words: str
    ) -> None:
        self._process = subprocess.Popen(
            ["git", "-C", str(mirror), *self.command, *words],
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


class Listing(Running):
    """Rows of `git ls-tree -z`; there are none if a revision has no such files."""

    command = ("ls-tree", "-z")

    def __iter__(self) -> Iterator[str]:
        """Yield rows. Raises Stalled("SourceTooLarge"), or Retryable if git does not finish."""
        assert self._process.stdout is not None
        size, count, rest = 0, 0, b""
        while piece := self._process.stdout.read(PIECE):
            *rows, rest = (rest + piece).split(b"\0")
            size += len(piece)
            count += len(rows)
            if count > MAX_FILES or size > LISTING_LIMIT:
                raise _too_many()
            yield from (row.decode(errors="replace") for row in rows)
        code = self._process.wait()
        if code < 0:
            raise Retryable(
                Reason.MIRROR_SLOW, "git was stopped as it listed the files of the newest commit"
            )
        if code != 0:
            raise Retryable(
                Reason.MIRROR_DAMAGED, "the files of the newest commit cannot be listed"
            )


class Survey:
    """Rows of all files of a revision that are read, without those of teams that have too many.

    git lists a folder completely or not at all. So if a team's folder is too large, that listing
    ends, and another one goes on with the teams after it.
    """

    def __init__(
        self, mirror: Path, environment: dict[str, str], timeout: float, head: str
    ) -> None:
        self._place = (mirror, environment, timeout)
        self._head = head
        self.unlisted: list[str] = []
        """Teams that were left out, once all rows were read."""

    def __iter__(self) -> Iterator[str]:
        """Yield rows. Raises what `Listing` does."""
        left, count = list(READ), 0
        while left:
            too_large = ""
            with Listing(*self._place, "-r", "-t", "-l", self._head, "--", *left) as rows:
                for team, of_team in groupby(rows, _team_of_row):
                    fitting = _fitting(of_team, TEAM_LISTING if team else UNLIMITED)
                    if fitting is None:
                        too_large = team
                        break
                    if (count := count + len(fitting)) > MAX_FILES:
                        raise _too_many()
                    yield from fitting
            left = self._teams_after(too_large) if too_large else []

    def _teams_after(self, team: str) -> list[str]:
        """Note a team as left out; return the folders of those that were not listed yet."""
        self.unlisted.append(team)
        with Listing(*self._place, "-d", self._head, "--", "teams/") as rows:
            names = [_path_of(row).partition("/")[2] for row in rows]
        # git sorts a folder as if its name ended with a slash.
        folders = [f"teams/{name}/" for name in names if f"{name}/" > f"{team}/"]
        if sum(map(len, folders)) > ARGUMENTS:
            raise _too_many()
        return folders


def _path_of(row: str) -> str:
    return row.partition("\t")[2]


def _team_of_row(row: str) -> str:
    return team_of(_path_of(row))


def _fitting(rows: Iterable[str], most: Most) -> list[str] | None:
    """Return the rows of a team, or None if they are too many, too long or too deep."""
    fitting, size = [], 0
    for row in rows:
        fitting.append(row)
        size += len(row)
        if len(fitting) > most.files or size > most.size or row.count("/") > most.depth:
            return None
    return fitting


def _too_many() -> Stalled:
    return Stalled(
        Reason.SOURCE_TOO_LARGE,
        f"the newest commit has more than {MAX_FILES} files and folders in {', '.join(READ)} (or "
        f"{LISTING_LIMIT >> 20} MiB of their names); what was accepted before stays as it is. Keep "
        f"data elsewhere, or revert the commit",
    )


class Blobs(Running):
    """Contents of git objects."""

    command = ("cat-file", "--batch-command")

    def read(self, name: str) -> bytes:
        """Return an object's content."""
        size = self._ask(name)
        assert self._process.stdout is not None
        data = self._process.stdout.read(size + 1)
        if len(data) != size + 1:
            raise _broken(name)
        return data[:size]

    def _ask(self, name: str) -> int:
        """Request an object's content; return its size in bytes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"contents {name}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise _broken(name) from error
        fields = self._process.stdout.readline().split()
        if len(fields) != 3:
            raise _broken(name)
        return int(fields[2])


def _broken(name: str) -> Retryable:
    return Retryable(Reason.MIRROR_DAMAGED, f"git object {name[:10]} cannot be read")


class Files:
    """Files of the revision that was read last; a `Tree` while blobs are available."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[str, Entry] = {}
        self._trees: dict[str, str] = {}
        self._paths: list[str] | None = None
        self._blobs: Blobs | None = None
        self._unlisted: tuple[str, ...] = ()

    def take(self, listing: Survey, blobs: Blobs) -> list[str]:
        """Take the files and folders of a revision; return the paths that differ from before."""
        entries: dict[str, Entry] = {}
        trees: dict[str, str] = {}
        before = self._entries
        for row in listing:
            described, path = row.split("\t", 1)
            mode, kind, name, size = described.split()
            if kind == "tree":
                trees[path] = name
                continue
            entry = before.get(path)  # the same object, if nothing has changed
            if entry is None or entry.blob != name or entry.mode != mode:
                entry = Entry(path, mode, name, int(size) if size != "-" else 0)
            entries[path] = entry
        changed = [path for path, entry in entries.items() if before.get(path) is not entry]
        changed += before.keys() - entries.keys()
        self._entries, self._trees, self._paths, self._blobs = entries, trees, None, blobs
        self._unlisted = tuple(listing.unlisted)
        return changed

    def unlisted(self) -> tuple[str, ...]:
        """Return the teams whose files are not listed, because there are too many."""
        return self._unlisted

    def leave(self) -> None:
        """End reading until the next revision is taken."""
        self._blobs = None

    def entries(self) -> dict[str, Entry]:
        """Return every file that may be read, by its path."""
        return self._entries

    def paths(self) -> list[str]:
        """Return the path of every file, sorted."""
        if self._paths is None:
            self._paths = sorted(self._entries)
        return self._paths

    def read(self, entry: Entry) -> bytes:
        """Return the content of a file that a definition may name, or of a project file."""
        path = entry.path
        hidden = PACKAGES in path and not path.endswith("/pyproject.toml")
        if entry.size > self._limit or not path.startswith(READ) or hidden:
            raise Stalled(Reason.TOO_LARGE, f"{path} is not read: it is too large, or in packages/")
        assert self._blobs is not None, "files are read while a revision is taken"
        return self._blobs.read(entry.blob)

    def is_pointer(self, entry: Entry) -> bool:
        """Return True if a file is a pointer of Git LFS; large files are not read."""
        if entry.size > POINTER_LIMIT or entry.size < len(POINTER):
            return False
        assert self._blobs is not None, "files are read while a revision is taken"
        return is_pointer(self._blobs.read(entry.blob))

    def tree_id(self, path: str) -> str:
        """Return git's id of the directory `path`, or "" if there is none."""
        return self._trees.get(path, "")


def commit_of(git: Git, head: str) -> Commit:
    """Return a commit's author, date and first line."""
    command = ["log", "-1", "--no-show-signature", FORMAT, head]  # `show` would also compute a diff
    text = git(command).decode(errors="replace").rstrip("\n")
    revision, author, at, subject = text.split("\0", 3)
    seconds = int(at) if at.isdecimal() and len(at) <= len(str(LATEST)) else 0
    return Commit(revision, author[:200], subject[:500], float(min(seconds, LATEST)))
