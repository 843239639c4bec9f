"""Garbage collection of a share with 10,000 builds, a tenth of which can be deleted.

Each build refers to twenty store entries, most of which are shared with many other builds.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Row
from reconciler.share.gc import collect_garbage
from reconciler.share.share import Share
from reconciler.share.sizes import Sizes
from tests.harness import large_repo

BUILDS = 10_000
SHARED = 200  # entries that builds have in common
EACH = 20
GRACE = 3600.0


def run(builds: int = BUILDS) -> list[Row]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as directory:
        share = Share(Path(directory))
        share.prepare()
        names = fill(share, builds)
        keep = set(names[: builds - builds // 10])
        gone = {
            "builds": set(names) - keep,
            "entries": {_digest(f"own {n}") for n in range(len(keep), builds)},
        }
        name = f"garbage, {builds:,} builds"
        sizes = Sizes(share)
        rows = [
            _row(name, "sizes by team, first look", _timed(sizes.look)),
            _row(name, "sizes by team, again", _timed(sizes.look)),
        ]
        now = time.time()
        for label, dry in (("dry run", True), ("collection", False)):
            begun = time.perf_counter()
            done = collect_garbage(
                share, roots=keep, held=(), now=now, grace=GRACE, dry_run=dry, sizes=Sizes(share)
            )
            rows.append(_row(name, label, time.perf_counter() - begun))
            for what, removed in (("builds", done.builds), ("entries", done.entries)):
                assert set(removed) == gone[what], "neither more nor less than may go"
                rows.append(
                    Row(
                        name,
                        f"{label}: {what}",
                        len(removed),
                        "",
                        "a tenth",
                        builds // 10,
                        count=True,
                    )
                )
        return rows


def short() -> list[Row]:
    """Return the counts for two hundred builds."""
    return [row for row in run(200) if row.count]


def fill(share: Share, builds: int) -> list[str]:
    """Write builds, each with one entry of its own and entries that they share."""
    common = [_entry(share, f"shared {n}") for n in range(SHARED)]
    names = []
    for number in range(builds):
        own = _entry(share, f"own {number}")
        entries = (own, *(common[(number * 7 + n) % SHARED] for n in range(EACH - 1)))
        name = large_repo.build_id(number, 0)
        large_repo.place_build(share, name, f"team-{number % 50:02d}", entries)
        os.utime(share.build_path(name), (0.0, 0.0))
        names.append(name)
    return names


def _entry(share: Share, words: str) -> str:
    digest = _digest(words)
    folder = share.root / "store" / "sha256" / digest[:2] / digest
    folder.mkdir(parents=True)
    (folder / "entry.json").write_text(json.dumps({"schema": 1, "files": 0, "bytes": 1 << 20}))
    os.utime(folder, (0.0, 0.0))
    return digest


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()


def _timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _row(name: str, measure: str, seconds: float) -> Row:
    return Row(name, measure, seconds, "s", "≤ 10 s", 10.0)
