"""Airflow of the simulated world, in memory; builds with ids that begin with `l` fail on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from reconciler.core.restarts import Content, Layout

LAYOUT = Layout(("api-server", "dag-processor", "scheduler"), scheduler_runs_tasks=False)
SELECTIVE = ("api-server", "scheduler")  # components that load only what declares itself
POOLS = {"default_pool": 128, "small": 3, "closed": 0}


def content(build_id: str) -> Content:
    """Return the content of a build: its own library, and a plugin that few recipes change."""
    digest = build_id.partition("@")[0]
    plugin = str(int(digest[1:]) // 3)
    return Content({"library": digest, "plugin": plugin}, declaring=frozenset({"plugin"}))


@dataclass
class Airflow:
    """Actual state of one instance: its base, pools, processes and tasks."""

    base: int = 1
    first_base: int = 1  # that had the same Airflow
    pools: dict[str, int] = field(default_factory=lambda: dict(POOLS))
    pointers: dict[str, str | None] = field(default_factory=dict)  # by runtime key, newest last
    running: str | None = None  # the build that its components loaded at their last start
    selective: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(SELECTIVE))
    healthy: bool = True
    rolling: bool = False  # an upgrade is in progress: its pods run several images
    tasks: list[str | None] = field(default_factory=list)  # the build that each task started with

    @property
    def runtime_key(self) -> str:
        """The runtime of its current base."""
        return f"cp311-linux-{self.base}"

    @property
    def mark(self) -> str:
        """The fingerprint of its base, or of the mixture while an upgrade is in progress."""
        return f"{self.base}~" if self.rolling else str(self.base)

    @property
    def loaded(self) -> tuple[str, str] | None:
        """The build that its processes would load if started now, and the runtime it is named for.

        A base without an entry of its own uses the newest one of the same Airflow.
        """
        alike = [k for k in self.pointers if int(k.rpartition("-")[2]) >= self.first_base]
        key = self.runtime_key if self.runtime_key in alike else next(reversed(alike), "")
        build = self.pointers.get(key)
        return (build, key) if build is not None else None

    @property
    def pointer(self) -> str | None:
        """The build that its processes would load if started now."""
        return self.loaded[0] if self.loaded is not None else None

    def start(self, kept: Collection[str] = ()) -> None:
        """Restart its components, but for those that keep their processes."""
        for component in {*SELECTIVE} - {*kept}:
            self.selective[component] = self.pointer
        self.running = self.pointer
        self.healthy = not (self.pointer or "").startswith("l")

    def upgrade(self) -> None:
        """Install another Airflow and start it, as an administrator would."""
        self.first_base = self.base + 1
        self.patch()

    def patch(self) -> None:
        """Change what is installed beside the same Airflow, and start it."""
        self.base += 1
        self.rolling = False
        self.tasks.clear()
        self.start()
