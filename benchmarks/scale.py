"""The daemon at 100, 1,000 and 10,000 environments, a tenth of which have an instance.

Every instance is active and nothing is built. Each size runs in its own process, so that memory is
measured separately. Where the machine is shared, seconds are CPU time; time spent waiting for git
and the disk is in the wall-clock figures beside them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from sqlalchemy import event

from benchmarks.rows import Row
from reconciler.core.statuses import Statuses
from reconciler.core.world import Plan
from reconciler.daemon.daemon import Daemon
from reconciler.daemon.leadership import Leadership
from tests.harness import large_repo

SIZES = (100, 1_000, 10_000)
TURNS = 15
MIB = 1 << 20
UNCHANGED, CHANGED = 2, 20  # statements to the database


@dataclass(frozen=True, slots=True)
class Figures:
    """Measurements of one size: milliseconds (median), seconds, MiB, database statements."""

    unchanged: float
    unchanged_cpu: float
    changed: float
    changed_cpu: float
    status: float
    cold: float
    cold_cpu: float
    memory: float
    unchanged_asked: int
    changed_asked: int


def run(sizes: Sequence[int] = SIZES) -> list[Row]:
    """Return the rows of this benchmark."""
    figures = {size: _in_a_process(size) for size in sizes}
    rows: list[Row] = []
    for size, measured in figures.items():
        name = f"scale, {size:,} environments"
        rows += [
            _row(name, "no-change cycle", measured.unchanged, "ms", 20),
            _row(name, "no-change cycle, processor", measured.unchanged_cpu, "ms", 20),
            _row(name, "one-change poll and cycle", measured.changed, "ms", 150),
            _row(name, "one-change poll and cycle, processor", measured.changed_cpu, "ms", 150),
            _row(name, "status after a one-object change", measured.status, "ms", 5),
            _row(name, "cold start", measured.cold, "s", 5),
            _row(name, "cold start, processor", measured.cold_cpu, "s", 5),
            _row(name, "memory (RSS)", measured.memory, "MiB", 250),
            _count(name, "no-change cycle, statements", measured.unchanged_asked, UNCHANGED),
            _count(name, "one-change poll and cycle, statements", measured.changed_asked, CHANGED),
        ]
    return rows


def short() -> list[Row]:
    """Return the counts for forty environments."""
    return [row for row in run((40,)) if row.count]


def _count(name: str, measure: str, value: int, most: int) -> Row:
    return Row(name, measure, value, "", f"≤ {most}", most, count=True)


def _row(name: str, measure: str, value: float, unit: str, most: float) -> Row:
    return Row(name, measure, value, unit, f"≤ {most:g} {unit}", most)


def _in_a_process(size: int) -> Figures:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "benchmarks.scale", directory, str(size)]
        for step in ("settle", "measure", "measure"):  # the second start uses what the first saved
            answer = subprocess.run(
                [*command, step], check=True, stdout=subprocess.PIPE, timeout=900
            ).stdout
        return Figures(**json.loads(answer))


def measure(root: Path) -> Figures:
    """Start a daemon's loop by hand and run its cycles one by one."""
    process = psutil.Process()
    daemon = Daemon(large_repo.settings(root))
    daemon.wiring.prepare()
    with Leadership(daemon.wiring.store, daemon.settings, daemon._stop) as leadership:
        daemon.wiring.leading, daemon.wiring.check = True, leadership.check
        _cycle(daemon, leadership)
        _wait(daemon)
        plan = _cycle(daemon, leadership)
        assert daemon.definitions is not None
        cold = time.time() - process.create_time()
        cold_cpu = sum(process.cpu_times()[:4])
        assert not any(e.kind in ("perform", "resolve") for e in plan.effects), "all is settled"
        asked: list[str] = []
        event.listen(
            daemon.wiring.store.engine,
            "before_cursor_execute",
            lambda _c, _u, statement, *_: asked.append(statement),
        )
        unchanged = [_timed(lambda: _cycle(daemon, leadership)) for _ in range(TURNS)]
        unchanged_asked = len(asked) // TURNS
        changed, shown = [], []
        statuses = Statuses()
        statuses.of(daemon.records, time.time())
        asked.clear()
        for turn in range(TURNS):
            number = (
                turn * large_repo.PER_INSTANCE + 1
            )  # without an instance, so that nothing is built
            text = large_repo.text_of(number, f"2.{time.time_ns()}")
            large_repo.commit(root / "repo.git", {large_repo.path_of(number): text})
            before = daemon.records.repo.accepted_revision
            changed.append(_timed(lambda: _take_commit(daemon, leadership)))
            assert daemon.records.repo.accepted_revision != before
            shown.append(_timed(lambda: statuses.of(daemon.records, time.time())))
        memory = process.memory_info().rss / MIB
        daemon._workers.stop(lambda _: True, 5.0)
    return Figures(
        *_medians(unchanged),
        *_medians(changed),
        _medians(shown)[0],
        cold,
        cold_cpu,
        memory,
        unchanged_asked,
        len(asked) // TURNS,
    )


def _medians(found: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median milliseconds, wall clock and CPU."""
    return (
        1000 * statistics.median(wall for wall, _ in found),
        1000 * statistics.median(cpu for _, cpu in found),
    )


def _cycle(daemon: Daemon, leadership: Leadership) -> Plan:
    return daemon._cycle(leadership)


def _take_commit(daemon: Daemon, leadership: Leadership) -> Plan:
    """Poll as the worker does, then decide."""
    daemon._learn(daemon._poll())
    return daemon._cycle(leadership)


def _wait(daemon: Daemon) -> None:
    while any(key[0] == "poll" for key in daemon._workers.busy()):
        time.sleep(0.002)


def _timed(act: Callable[[], object]) -> tuple[float, float]:
    """Return (seconds, CPU seconds including those of ended children)."""
    process = psutil.Process()
    begun, before = time.perf_counter(), sum(process.cpu_times()[:4])
    act()
    return time.perf_counter() - begun, sum(process.cpu_times()[:4]) - before


if __name__ == "__main__":
    where, count = Path(sys.argv[1]), int(sys.argv[2])
    if sys.argv[3] == "settle":
        large_repo.settle(where, count)
    else:
        print(json.dumps(asdict(measure(where))))
