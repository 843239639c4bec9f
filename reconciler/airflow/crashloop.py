"""A component that a supervisor starts again and again is down, whatever its status command says.

Called by the local driver at each look while it probes. What it has seen is kept in memory only: a
daemon that starts anew counts anew, and the gate's time limit holds in any case.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import psutil

from reconciler.core.definitions import Instance
from reconciler.core.model import Activation

STARTS = 3  # that many starts of one component since the restart are a loop


class Starts:
    """Which processes of each component were seen since an activation's restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[tuple[str, float], dict[str, set[float]]]] = {}
        self._living: dict[str, dict[str, float]] = {}

    def look(self, instance: Instance, activation: Activation) -> str:
        """In words, which component is in a loop; "" while none is."""
        assert instance.local is not None, "processes are those of local instances"
        names = [c.name for c in instance.local.components if c.name in activation.components]
        found = _starts(names, f"/instances/{instance.name}/loader", activation.restarted_at)
        early = left_out()
        mark = (activation.id, activation.restarted_at)
        with self._lock:
            known_mark, known = self._seen.get(instance.name, (mark, {}))
            if known_mark != mark:
                known = {}
            for name, times in found.items():
                known.setdefault(name, set()).update(times)
            self._seen[instance.name] = (mark, known)
            self._living[instance.name] = {n: max(at) + early for n, at in found.items()}
            loops = {n: len(times) for n, times in known.items() if len(times) >= STARTS}
        return "; ".join(
            f"{name} was started {count} times since its restart and does not stay up"
            for name, count in sorted(loops.items())
        )

    def living(self, instance: Instance) -> dict[str, float]:
        """When each component's process started, as of the last look; those that were seen."""
        with self._lock:
            return self._living.get(instance.name, {})


def left_out() -> float:
    """Return how far psutil's start times are early: it knows the boot in whole seconds only."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return min(1.0, max(0.0, booted - psutil.boot_time()))


def _starts(names: Iterable[str], loader: str, since: float) -> dict[str, set[float]]:
    """Start times of the processes that each component's supervisor started after `since`."""
    mine: dict[int, tuple[str, int, float]] = {}
    for process in psutil.process_iter(["pid", "ppid", "cmdline", "create_time"]):
        words = " ".join(process.info["cmdline"] or []).split()
        component = next((n for n in names if n in words), None)
        if component is None or not any("airflow" in word for word in words):
            continue
        try:
            if loader not in process.environ().get("PYTHONPATH", ""):
                continue
        except psutil.Error:
            continue
        info = process.info
        mine[info["pid"]] = (component, info["ppid"], float(info["create_time"]))
    found: dict[str, set[float]] = {}
    for component, parent, at in mine.values():
        if parent not in mine and at >= since - 1.0:
            found.setdefault(component, set()).add(round(at, 1))
    return found
