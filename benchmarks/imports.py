"""Import of a large environment from a slow share, compared with a directory and local disk.

The build is constructed and verified by Groundcrew, then loaded by the real loader through a mount
with the latency and bandwidth of an NFS mount. The directory is the same build without packs: one
folder per distribution, with bytecode. Local disk is the same folders without a mount, cold (not in
the page cache, like the share's files on a new machine) and warm. The loader's folder is in memory,
like an emptyDir of medium Memory.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.slowshare import mounted
from reconciler.builder.build_job import BuildJob
from reconciler.builder.builder import Builder
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.builder.uv import uv_path
from reconciler.core.definitions import (
    Api,
    Instance,
    LocalTarget,
    Place,
    Recipe,
    Requirement,
    SourcePackage,
)
from reconciler.settings import BuilderSettings
from reconciler.share.share import BaseName, Share
from tests.fakes.base import make_base, write_package

WANTED = (
    "pandas",
    "pyarrow",
    "boto3",
    "snowflake-connector-python",
    "google-cloud-bigquery",
)
MODULES = (
    "boto3",
    "pandas",
    "pyarrow",
    "pyarrow.parquet",
    "snowflake.connector",
    "google.cloud.bigquery",
)
HERE = Place("teams/red/one.yaml", 1)
TURNS = 5  # of ours and local disk; the directory is far slower than both, so one run is enough
HELD = 3.5  # seconds: longer than a client of the slow share caches attributes
PACKAGE = "teams/red/packages/acme"


@dataclass(frozen=True, slots=True)
class Seen:
    """One start of a process: seconds until its imports are done, and round trips."""

    seconds: float
    trips: int


@dataclass(frozen=True, slots=True)
class Site:
    """Share with one verified build, and an interpreter to load it."""

    root: Path
    share: Path
    python: str


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as directory:
        site = make_site(Path(directory))
        rows = []
        for trip, megabytes in ((0.001, 500.0), (0.005, 100.0)):
            rows += _measure(site, trip, megabytes)
        return rows


def make_site(root: Path) -> Site:
    """Build and verify the environment in a local directory, as the daemon does on the share."""
    package = root / "acme"
    module = "".join(f"import {name}\n" for name in MODULES)
    write_package(package, "acme", "1.0", {"acme/__init__.py": module})
    python = base_of(root)
    (root / "share").mkdir()
    share = Share(root / "share")
    share.prepare()
    settings = BuilderSettings()
    builder = Builder(
        settings,
        share,
        lambda _, target: _export(package, target),
        cache_dir=root / "cache",
        secrets_dir=root / "secrets",
        executor=Sandbox(settings, root / "cache", []),
    )
    runtime = builder.inspect(python)
    recipe = Recipe(
        digest="1" * 64,
        requirements=(
            *(Requirement(name, HERE) for name in WANTED),
            Requirement("acme", HERE, PACKAGE),
        ),
        packages=(SourcePackage("acme", PACKAGE, "1" * 40, HERE),),
    )
    job = BuildJob("one", "red", "red", "r", root / "log", threading.Event())
    home = root / "airflow"
    (home / "dags").mkdir(parents=True)
    local = LocalTarget(python, str(home), ())
    instance = Instance("dev", "red", Place("i.yaml"), Api("http://127.0.0.1:1"), local)
    lock = builder.resolve(job, recipe, runtime)
    built = builder.construct(job, recipe, runtime, lock.text)
    builder.verify(job, recipe, runtime, instance, built.build_id)
    share.point(
        "dev",
        BaseName(runtime.key, f"{runtime.python_tag}-{runtime.platform}", runtime.airflow_version),
        built.build_id,
        ["worker"],
    )
    return Site(root, share.root, python)


def base_of(root: Path) -> str:
    """Return an interpreter that can compute its wheel tags, as every Airflow's can."""
    python = make_base(root / "base")
    subprocess.run(
        [uv_path(), "pip", "install", "--quiet", "--python", python, "packaging"], check=True
    )
    return python


def _export(package: Path, target: Path) -> None:
    shutil.copytree(package, target, dirs_exist_ok=True)


def start(site: Site, share: Path, local: str) -> float:
    """Return the seconds from the start of a process until its imports are done."""
    begun = time.perf_counter()
    subprocess.run(
        [site.python, "-c", "import acme"],
        check=True,
        timeout=300,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(share / "instances" / "dev" / "loader"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GROUNDCREW_COMPONENT": "worker",
            "GROUNDCREW_LOCAL": local,
        },
    )
    return time.perf_counter() - begun


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    os.sync()
    for here, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(here) / name, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def from_share(
    site: Site, trip: float, megabytes: float, local: str, beside: Callable[[], None] = lambda: None
) -> list[Seen]:
    """Start three processes in turn on a fresh mount; call `beside` after the last two.

    The third start begins when the client's cached attributes have expired.
    """
    at = site.root / "mnt"
    starts: list[Seen] = []
    with mounted(site.share, at, trip=trip, megabytes=megabytes) as counts:
        for wait in (0.0, 0.0, HELD):
            time.sleep(wait)
            before = len(counts.asked())
            seconds = start(site, at, local)
            starts.append(Seen(seconds, len(counts.asked()) - before))
            if len(starts) > 1:
                beside()
    return starts


def _median(found: list[Seen]) -> Seen:
    return Seen(
        statistics.median(seen.seconds for seen in found),
        int(statistics.median(seen.trips for seen in found)),
    )


def _measure(site: Site, trip: float, megabytes: float) -> list[Row]:
    """Measure ours and local disk alternately, as they are close together, then the directory."""
    memory = Path("/dev/shm")
    local = (memory if memory.is_dir() else site.root) / f"groundcrew-bench-{os.getpid()}"
    ours: list[Seen] = []
    ours_next: list[Seen] = []
    disk: list[Seen] = []
    cold_disk: list[Seen] = []

    def from_disk(found: list[Seen]) -> None:
        found.append(Seen(start(site, site.share, "off"), 0))

    from_disk([])  # everything that it reads is in the page cache from now on
    for _ in range(TURNS):
        shutil.rmtree(local, ignore_errors=True)
        one, *more = from_share(site, trip, megabytes, str(local), lambda: from_disk(disk))
        ours.append(one)
        ours_next += more
        shutil.rmtree(local, ignore_errors=True)
        forget(site.share)
        from_disk(cold_disk)
    first, further = _median(ours), _median(ours_next)
    plain, plain_next, plain_last = from_share(site, trip, megabytes, "off")
    cold, warm = _median(cold_disk), _median(disk)
    most = max(seen.trips for seen in ours_next)
    name = f"imports {trip * 1000:.0f} ms"
    peer = "a directory with bytecode"
    near = trip <= 0.001
    faster = 4.0 if near else 5.0
    return [
        Row(
            name,
            "first process on a machine",
            first.seconds,
            "s",
            f"≥ {faster:g} times faster",
            plain.seconds / faster,
            peer,
            plain.seconds,
        ),
        Row(
            name,
            "the same, beside local disk",
            first.seconds,
            "s",
            "≤ 1.25 times" if near else "–",
            1.25 * cold.seconds if near else None,
            "local disk, cold",
            cold.seconds,
        ),
        Row(name, "its round trips", first.trips, "", "≤ 700", 700, peer, plain.trips, count=True),
        Row(
            name,
            "every further process",
            further.seconds,
            "s",
            "≤ 1.1 times local disk",
            1.1 * warm.seconds,
            "local disk, warm",
            warm.seconds,
        ),
        Row(
            name,
            "its round trips, at most",
            most,
            "",
            "≤ 20",
            20,
            peer,
            max(plain_next.trips, plain_last.trips),
            count=True,
        ),
    ]
