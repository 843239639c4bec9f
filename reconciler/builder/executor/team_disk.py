"""Limit on the local disk that one team's commands use, over all of its running builds.

The sandbox registers what each command may write. While a command runs, its team's folders are
measured now and then: files are small or large, so there is no cheaper way to know.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

INTERVAL = 2.0  # seconds between two measurements, at least
SHARE = 10  # a measurement takes at most one part in so many of a command's time
UNIT = 1 << 30


class TeamDisk:
    """Disk that the commands of each team use; `limit` in bytes for one team, 0 for no limit.

    `trash` is a folder on the same disk.
    """

    def __init__(self, limit: int, trash: Path) -> None:
        self._limit = limit
        self._trash = trash
        self._lock = threading.Lock()
        self._used: dict[str, Counter[Path]] = {}

    @contextmanager
    def using(self, team: str, work: Path, caches: Sequence[Path]) -> Iterator[Callable[[], None]]:
        """Count a command's folder and its team's caches while the command runs.

        Yield a function to be called regularly: it raises Stalled("BuildDiskQuota") if the team
        uses too much. A cache that alone takes half of that is emptied first, unless another
        command uses it.
        """
        for cache in caches:
            self._empty_if_large(team, cache)
        folders = [work, *caches]
        with self._lock:
            self._used.setdefault(team, Counter()).update(folders)
        try:
            yield _paced(lambda: self._check(team))
        finally:
            with self._lock:
                self._used[team].subtract(folders)
                self._used[team] = +self._used[team]

    def _empty_if_large(self, team: str, cache: Path) -> None:
        if not self._limit or size_of(cache) <= self._limit / 2:
            return
        gone = Path(tempfile.mkdtemp(prefix="emptied-", dir=self._trash))
        with self._lock:
            if not self._used.get(team, Counter())[cache]:
                cache.rename(gone / cache.name)
                cache.mkdir()
        shutil.rmtree(gone, ignore_errors=True)

    def _check(self, team: str) -> None:
        if not self._limit:
            return
        with self._lock:
            folders = set(self._used[team])
        outermost = [one for one in folders if not folders.intersection(one.parents)]
        used = sum(map(size_of, outermost))
        if used > self._limit:
            raise Stalled(
                Reason.BUILD_DISK_QUOTA,
                f"the builds of team {team} take {used / UNIT:.2f} GiB of the build disk, and may "
                f"take {self._limit / UNIT:.2f} GiB (builder.team_disk_bytes); let the build write "
                f"less, or build less at once, then `groundcrew retry`",
            )


def _paced(check: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls `check` now and then, less often if that takes long."""
    due = time.monotonic() + INTERVAL

    def now_and_then() -> None:
        nonlocal due
        begun = time.monotonic()
        if begun >= due:
            check()
            ended = time.monotonic()
            due = ended + max(INTERVAL, SHARE * (ended - begun))

    return now_and_then


def size_of(folder: Path) -> int:
    """Return the bytes of disk that a folder takes; what disappears meanwhile counts as nothing."""
    total, pending, seen = 0, [os.fspath(folder)], set[tuple[int, int]]()
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
    return total
