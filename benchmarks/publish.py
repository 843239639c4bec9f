"""Publishing a large environment to a slow share, compared with pip and uv installing there.

Everything that is published was fetched, unpacked and compiled before, as for the imports
benchmark; the peers have their downloads cached. The figure is the time until the build is complete
on the share and can be verified. Its folders are written during verification, and their time is a
separate row. Then one package changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.imports import WANTED, Seen, Site, make_site
from benchmarks.rows import Row
from benchmarks.slowshare import mounted
from reconciler.builder.uv import uv_path
from reconciler.builder.wheels import placement
from reconciler.share.share import Share

BUILD, NEXT = "a" * 16, "b" * 16
WRITERS = 8  # entries written at once
NEVER = "f" * 64  # digest of a changed in-house package
AN_ENTRY, AN_ENVIRONMENT = 26, 60  # round trips: for each entry in addition to its writes, and once
A_LOOK = 6  # round trips: for an entry that already exists
PIECE = 128 << 10  # bytes of one write, as the kernel passes them on at least


@dataclass(frozen=True, slots=True)
class Placed:
    """Measurements of each step."""

    first: Seen
    second: Seen
    spread: Seen


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as directory:
        return measure(make_site(Path(directory)))


def measure(site: Site) -> list[Row]:
    """Publish a site's build again, and let pip and uv install the same packages."""
    made = Share(site.share)
    (build_id,) = made.complete_builds()
    staged = {digest: site.root / "staged" / digest for digest in made.on_path(build_id)}
    for digest, folder in staged.items():
        folder.parent.mkdir(exist_ok=True)
        made.copy_out(digest, folder)
    staged = dict(sorted(staged.items(), key=lambda item: -_size(item[1])))  # as the builder does
    os.sync()  # so that earlier writes are not measured
    placed = _ours(site.root, staged, trip=0.001)
    peers: dict[str, float] = {}
    for name, install in (("uv pip install --target", _uv), ("pip install --target", _pip)):
        install(site.python, site.root / "warm")  # fills its cache
        shutil.rmtree(site.root / "warm")
        behind, at = _fresh(site.root)
        with mounted(behind, at, trip=0.001, megabytes=500.0):
            peers[name] = _seconds(lambda: install(site.python, at / "target"))  # noqa: B023
    what, (uv, pip) = "environment placed at 1 ms", peers
    return [
        Row("publish", what, placed.first.seconds, "s", "≤ 2 s", 2.0, uv, peers[uv]),
        Row("publish", what, placed.first.seconds, "s", "≤ 2 s", 2.0, pip, peers[pip]),
        Row(
            "publish",
            "one in-house package changed",
            placed.second.seconds,
            "s",
            "≤ 0.5 s",
            0.5,
            uv,
            peers[uv],
        ),
        Row(
            "publish",
            "folders made beside verification",
            placed.spread.seconds,
            "s",
            "≤ uv's",
            peers[uv],
            uv,
            peers[uv],
        ),
        *_counts(placed, staged),
    ]


def short() -> list[Row]:
    """Return the counts for thirty entries of twenty small files each."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        staged = {}
        for number in range(30):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            staged[digest] = root / "staged" / digest
            for name in range(20):
                path = staged[digest] / "lib" / f"package{number}" / f"m{name}.py"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"X = {name}\n" * 200)
        return _counts(_ours(root, staged, trip=0.0), staged)


def _counts(found: Placed, staged: dict[str, Path]) -> list[Row]:
    size = sum(map(_size, staged.values()))
    entries = len(staged)
    most = AN_ENVIRONMENT + AN_ENTRY * entries + size // PIECE
    limit = f"≤ {AN_ENVIRONMENT}, {AN_ENTRY} for each of {entries} entries, 1 for each 128 KiB"
    return [
        Row("publish", "its round trips", found.first.trips, "", limit, most, count=True),
        Row(
            "publish",
            "round trips, one in-house package changed",
            found.second.trips,
            "",
            f"≤ {AN_ENVIRONMENT} + {A_LOOK} × {entries}",
            AN_ENVIRONMENT + A_LOOK * entries,
            count=True,
        ),
        Row("publish", "round trips of the folders", found.spread.trips, "", count=True),
    ]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.*"))


def _ours(root: Path, staged: dict[str, Path], trip: float) -> Placed:
    """Publish an environment, write its folders, then publish it with one other entry."""
    behind, at = _fresh(root)
    with mounted(behind, at, trip=trip, megabytes=500.0) as counts:
        share = Share(at)
        share.prepare()

        def seen(action: Callable[[], None]) -> Seen:
            before = len(counts.asked())
            seconds = _seconds(action)
            return Seen(seconds, len(counts.asked()) - before)

        first = seen(lambda: _place(share, BUILD, staged))
        spread = seen(lambda: share.spread(list(staged), lambda: None))
        changed = {**staged}
        changed[NEVER] = changed.pop(list(staged)[-1])
        return Placed(first, seen(lambda: _place(share, NEXT, changed)), spread)


def _fresh(root: Path) -> tuple[Path, Path]:
    """Return (an empty folder, the path to mount it at)."""
    behind = root / "behind"
    shutil.rmtree(behind, ignore_errors=True)
    behind.mkdir()
    return behind, root / "mnt"


def _place(share: Share, build_id: str, staged: dict[str, Path]) -> None:
    """Write every missing entry, then the build."""
    there = placement.all_found(share, list(staged))
    with ThreadPoolExecutor(WRITERS) as pool:
        absent = [digest for digest in staged if digest not in there]
        list(pool.map(lambda digest: placement.put(share, digest, staged[digest]), absent))
    document = {"schema": 1, "build": build_id, "entries": list(staged), "paths": []}
    share.put_build(build_id, {"build.json": json.dumps(document).encode()})


def _uv(python: str, target: Path) -> None:
    subprocess.run(
        [
            uv_path(),
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--compile-bytecode",
            "--link-mode",
            "copy",
            "--target",
            str(target),
            *WANTED,
        ],
        check=True,
        timeout=900,
    )


def _pip(python: str, target: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
            str(target),
            *WANTED,
        ],
        check=True,
        env={**os.environ, "PIP_NO_INPUT": "1"},
        timeout=1800,
    )


def _seconds(action: Callable[[], None]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
