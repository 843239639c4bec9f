"""Logs of builds on the share: beside a finished build, or in `logs/` for a failed one.

While a build runs, its log is on the disk of the daemon that makes it. Logs stored here contain no
secrets (see `builder.job`), have a limited size, and are removed with the build's record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from reconciler.core.phases import BuildPhase
from reconciler.share.atomic import make_directory, replace_file, translating
from reconciler.share.share import Share

KEPT = 1 << 20  # bytes of a log's end
NAME = re.compile(r"([0-9a-f]{16})\.log")


def keep_log(share: Share, key: str, log: Path) -> None:
    """Put the end of a build's log, if it exists, on the share for every replica."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - KEPT))
            data = file.read(KEPT)
    except FileNotFoundError:
        return
    share.check()
    with translating("keeping the log of a build"):
        make_directory(share.root / "logs", share.root)
    replace_file(share.root / "logs" / f"{key}.log", data, "share.keep_log")


def kept_logs(share: Share, key: str, build_id: str | None, phase: BuildPhase) -> list[Path]:
    """Return the possible paths of a build's log on the share, the best one first."""
    kept = [share.root / "logs" / f"{key}.log"]
    if build_id is None:
        return kept
    made = share.build_path(build_id) / "build.log"
    return [made, *kept] if phase is BuildPhase.READY else [*kept, made]


def collect_logs(share: Share, keys: Collection[str], now: float, grace: float) -> None:
    """Remove logs of builds that are no longer in the records, after a grace period in seconds."""
    folder = share.root / "logs"
    with translating("removing logs of builds"):
        if not folder.is_dir():
            return
        for entry in os.scandir(folder):
            match = NAME.fullmatch(entry.name)
            known = match is not None and match[1] in keys
            if not known and now - entry.stat(follow_symlinks=False).st_mtime > grace:
                share.check()
                Path(entry.path).unlink(missing_ok=True)
