"""Detection of crash loops: a component that a supervisor keeps restarting counts as down.

The local driver calls it at each check while it probes, whatever the status command says. The
observations are kept in memory only: a daemon that restarts counts from the beginning, and the
gate's time limit applies in any case.

Only processes that end and are replaced between two checks count. Everything that the first check
finds is one start, however many processes that are: a daemon that was killed while it restarted
components repeats the restart, and what the repetitions left behind is not the build's fault.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from reconciler.airflow.processes import has_loader
from reconciler.core.definitions import Instance
from reconciler.core.model import Activation

STARTS = 3  # this many starts of one component while it is probed count as a loop


@dataclass(frozen=True, slots=True)
class _Component:
    """Living processes of one component; `started` maps those started by a supervisor to the time.

    The others are their children. Processes are distinguished by psutil's identity, which does not
    change with the clock.
    """

    started: dict[psutil.Process, float] = field(default_factory=dict)
    children: set[psutil.Process] = field(default_factory=set)


@dataclass(slots=True)
class _Count:
    """Starts of one component since probing began."""

    known: set[psutil.Process] = field(default_factory=set)
    living: set[psutil.Process] = field(default_factory=set)
    ended: int = 0
    replaced: int = 0

    def look(self, component: _Component) -> int:
        """Add the processes alive now; return how often the component was started."""
        now = set(component.started)
        self.ended += len(self.living - now)
        if self.known:
            self.replaced += len(now - self.known)
        self.known |= now | component.children  # a child may outlive its parent
        self.living = now
        return 1 + min(self.ended, self.replaced) if self.known else 0


class Starts:
    """Processes of each component seen while an activation was probed.

    Only processes with the instance's loader on `share` count (None: on any share).
    """

    def __init__(self, share: Path | None = None) -> None:
        self._share = share
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[tuple[str, float], dict[str, _Count]]] = {}
        self._living: dict[str, dict[str, float]] = {}

    def look(self, instance: Instance, activation: Activation) -> str:
        """Return a text about a component in a crash loop, or ""."""
        assert instance.local is not None, "processes are those of local instances"
        names = [c.name for c in instance.local.components if c.name in activation.components]
        components = self._processes(instance.name, names, activation.restarted_by)
        early = left_out()
        mark = (activation.id, activation.restarted_at)
        with self._lock:
            known_mark, known = self._seen.get(instance.name, (mark, {}))
            if known_mark != mark:
                known = {}
            counts = {
                name: known.setdefault(name, _Count()).look(components.get(name, _Component()))
                for name in names
            }
            self._seen[instance.name] = (mark, known)
            self._living[instance.name] = {
                name: max(component.started.values()) + early
                for name, component in components.items()
                if component.started
            }
        return "; ".join(
            f"{name} was started {count} times since its restart and does not stay up"
            for name, count in sorted(counts.items())
            if count >= STARTS
        )

    def living(self, instance: Instance) -> dict[str, float]:
        """Return when each component's process started, as of the last check."""
        with self._lock:
            return self._living.get(instance.name, {})

    def _processes(
        self, instance: str, names: Iterable[str], since: float
    ) -> dict[str, _Component]:
        """Return the processes of each component that were started after `since`."""
        mine: dict[int, tuple[str, int, float]] = {}
        for process in psutil.process_iter(["pid", "ppid", "cmdline", "create_time"]):
            arguments = " ".join(process.info["cmdline"] or []).split()
            component = next((n for n in names if n in arguments), None)
            if component is None or not any("airflow" in word for word in arguments):
                continue
            try:
                python_path = process.environ().get("PYTHONPATH", "")
            except psutil.Error:
                continue
            info = process.info
            if has_loader(info["pid"], python_path, self._share, instance):
                mine[info["pid"]] = (component, info["ppid"], float(info["create_time"]))
        components: dict[str, _Component] = {}
        for pid, (name, parent, at) in mine.items():
            component_found = components.setdefault(name, _Component())
            try:
                process = psutil.Process(pid)  # not one kept from an earlier check
            except psutil.Error:
                continue
            if parent in mine:
                component_found.children.add(process)
            elif at >= since - 1.0:
                component_found.started[process] = at
        return components


def left_out() -> float:
    """Return how early psutil's start times are: it knows the boot time in whole seconds only."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return min(1.0, max(0.0, booted - psutil.boot_time()))
