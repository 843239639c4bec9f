"""Groundcrew's own time from a commit to an active instance, the poll, and an idle daemon.

Everything is real except Airflow; a fake Airflow answers at once. So the times are those of
Groundcrew, git and uv.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.rows import Row
from gitsource.source import Source
from reconciler.core.event_codec import data_of
from reconciler.core.events import Event, EventKind
from reconciler.settings import GitSettings
from reconciler.store.store import Store
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import COMPONENTS, Site

TURNS = 5
IDLE_SECONDS = 30.0
POLLS = 20
MIB = 1 << 20


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as directory, FakeAirflow() as airflow:
        site = Site(Path(directory) / "site", airflow, poll_interval=10.0)
        site.commit("1.0")
        log = (Path(directory) / "log").open("wb")
        daemon = subprocess.Popen(
            [sys.executable, "-m", "reconciler.cli", "run"],
            env=site.environment(),
            stdout=log,
            stderr=log,
        )
        try:
            return _measure(site, psutil.Process(daemon.pid))
        finally:
            daemon.terminate()
            daemon.wait(timeout=60)
            log.close()


def short() -> list[Row]:
    """Return the counts for one commit and one cycle that finds nothing new."""
    with tempfile.TemporaryDirectory() as directory, FakeAirflow() as airflow:
        site = Site(Path(directory) / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        last, started = site.store().last_event_id(), len(airflow.state.loaded)
        site.commit("1.1")
        code, output = site.once()
        assert code == 0, output
        kinds = [event.kind for event in site.store().events(after_id=last)]
        (site.root / "poll-state").mkdir()
        source = Source(
            GitSettings(url=str(site.repo)), site.root / "poll-state", site.root / "secrets", tuple
        )
        assert source.poll() is not None
        processes: list[str] = []
        sys.addaudithook(
            lambda name, _: processes.append(name) if name == "subprocess.Popen" else None
        )
        assert source.poll() is None
        counted = {
            "commit: builds": (kinds.count(EventKind.BUILD_READY), 1),
            "commit: activations": (kinds.count(EventKind.ACTIVATION_ACTIVE), 1),
            "commit: starts of components": (len(airflow.state.loaded) - started, len(COMPONENTS)),
            "poll without a change: processes": (len(processes), 1),
        }
    return [
        Row("overhead", what, count, "", f"≤ {most}", most, count=True)
        for what, (count, most) in counted.items()
    ]


def _measure(site: Site, daemon: psutil.Process) -> list[Row]:
    while not Path(site.database.removeprefix("sqlite:///")).exists():
        time.sleep(0.2)
    time.sleep(1.0)
    store = site.store()
    _active(store, 0)
    whole, ready = [], []
    for number in range(TURNS):
        last = store.last_event_id()
        begun = time.time()
        site.commit(f"2.{number}")
        active = _active(store, last)
        phases = data_of(active)["phases"]
        assert isinstance(phases, dict)
        whole.append(active.at - begun - phases.get("Restarting", 0.0))
        events = store.events(after_id=last, kinds=["BuildReady"])
        ready.append(events[0].at - begun)
    polls = _polls(site)
    cpu, memory = _idle(daemon)
    store.close()
    name = "overhead"
    return [
        _row(name, "commit to active, without restarts (median)", whole, "s", 2.0),
        _row(name, "in-house change: commit to Ready (median)", ready, "s", 3.0),
        _row("idle", "poll without a change (median)", [p * 1000 for p in polls], "ms", 20.0),
        Row("idle", f"processor over {IDLE_SECONDS:.0f} s", cpu, "%", "≤ 1 %", 1.0),
        Row("idle", "memory (RSS)", memory, "MiB", "≤ 150 MiB", 150.0),
    ]


def _row(benchmark: str, measure: str, values: list[float], unit: str, most: float) -> Row:
    value = statistics.median(values)
    return Row(benchmark, measure, value, unit, f"≤ {most:g} {unit}", most)


def _active(store: Store, after: int, timeout: float = 120.0) -> Event:
    """Wait for the next activation to end; return its event."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        events = store.events(after_id=after, kinds=["ActivationActive", "BuildFailed"])
        if events:
            assert events[0].kind == "ActivationActive", events[0].message
            return events[0]
        time.sleep(0.02)
    raise TimeoutError("no activation ended")


def _polls(site: Site) -> list[float]:
    """Return the seconds of each poll that finds nothing new."""
    state = site.root / "poll-state"
    state.mkdir()
    source = Source(GitSettings(url=str(site.repo)), state, site.root / "secrets", tuple)
    assert source.poll() is not None
    seconds = []
    for _ in range(POLLS):
        begun = time.perf_counter()
        assert source.poll() is None
        seconds.append(time.perf_counter() - begun)
    return seconds


def _idle(daemon: psutil.Process) -> tuple[float, float]:
    """Return (percent of a core, MiB) of the daemon and its children while nothing changes."""
    time.sleep(5.0)
    before = _cpu(daemon)
    begun = time.monotonic()
    time.sleep(IDLE_SECONDS)
    percent = 100 * (_cpu(daemon) - before) / (time.monotonic() - begun)
    return percent, daemon.memory_info().rss / MIB


def _cpu(daemon: psutil.Process) -> float:
    """Return the CPU seconds that the daemon and its ended children used so far."""
    times = daemon.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
