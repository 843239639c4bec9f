"""Site on which one version after another is committed while something fails."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

from reconciler.core.model import Records
from reconciler.store.store import Store
from tests.chaos.counts import Counts
from tests.chaos.disks import Disk
from tests.chaos.gitserver import GitServer
from tests.crash.lanes import Task
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import BAD_IMPORT, BAD_LIVE, GOOD, Site
from tests.harness.promises import (
    ENDS,
    Asked,
    check_always,
    check_at_rest,
    check_history,
    check_secrets,
    pointed_build,
)

TEXTS = {Asked.GOOD: GOOD, Asked.FAILS_LIVE: BAD_LIVE, Asked.FAILS_VERIFICATION: BAD_IMPORT}
OFTEN = {Asked.GOOD: 3, Asked.FAILS_LIVE: 2, Asked.FAILS_VERIFICATION: 1}
DISK = 128  # megabytes of each file system
PATIENCE = 300.0  # seconds until a site must be at rest again, however busy the machine is
LOG_LIMIT = 1 << 20  # bytes of a lane's log; the newest part is kept
DAY = 86400.0


class Lane(ABC):
    """Lane that plays rounds: commit a version, let something fail, wait until all is done, check.

    All choices come from `seed`. Each round has `more_faults` faults besides its disturbance.
    `close` must always be called.
    """

    def __init__(self, root: Path, seed: str, counts: Counts, more_faults: int = 0) -> None:
        self.random = Random(seed)
        self._more_faults = more_faults
        self.counts = counts
        self.root = root
        self.log = root / "log"
        self.now = "setting up"  # the current action, for a report
        self._version = 0
        self._closing = ExitStack()
        root.mkdir(parents=True)
        self.log.touch()
        self.airflow = self._closing.enter_context(FakeAirflow())
        self.share = self._disk("share")
        self.state = self._disk("state")
        self.site = Site(root / "site", self.airflow, poll_interval=0.5)
        self.git = self._closing.enter_context(GitServer(self.site.repo))
        self.variables = {
            "GROUNDCREW_GIT__URL": self.git.url,
            "GROUNDCREW_GIT__ALLOW_SCHEMES": '["git"]',
            "GROUNDCREW_ACTIVATION__SETTLE": "0",
        }
        self._old_task: Task | None = None

    def _disk(self, name: str) -> Disk:
        disk = Disk(self.root / "site" / name, DISK)
        self._closing.callback(disk.close)
        return disk

    def close(self) -> None:
        """End all processes, and remove the file systems."""
        if self._old_task is not None:
            self._old_task.kill()
        self._closing.close()

    # ------------------------------------------------------------------------------- rounds

    @abstractmethod
    def prepare(self) -> None:
        """Bring the site to rest on its first version."""

    @abstractmethod
    def disturb(self, asked: Asked) -> None:
        """Let something fail while daemons deliver the version that was just committed."""

    @abstractmethod
    def faults(self) -> list[Callable[[Asked], None]]:
        """Return the faults other than kills that may happen in its environment."""

    @abstractmethod
    def go_on(self) -> None:
        """Let daemons work without faults, for a while or until nothing is left to do."""

    @abstractmethod
    def rest(self) -> None:
        """End the daemons that still run."""

    def round(self) -> None:
        """Play one round. Raises AssertionError if a promise is broken."""
        (asked,) = self.random.choices(list(OFTEN), list(OFTEN.values()))

        def disturb() -> None:
            self.disturb(asked)
            for _ in range(self._more_faults):
                self.random.choice(self.faults())(asked)

        self.play(asked, disturb)

    def play(self, asked: Asked, disturb: Callable[[], object]) -> None:
        """Commit a version, disturb its way, wait until the site is at rest, check the promises."""
        before = pointed_build(self.site)
        self.airflow.state.patched.clear()
        loaded = len(self.airflow.state.loaded)
        self._shorten_log()
        with Task(self.site) as task:
            self.commit(asked)
            disturb()
            self.now = f"settling on a version that is {asked}"
            self.settle(asked, before)
            self.rest()
            if asked is Asked.FAILS_VERIFICATION:
                assert not self.airflow.state.patched, "a failed build changed pools"
                assert len(self.airflow.state.loaded) == loaded, "a failed build restarts"
            _check_task(task)
        self._check_files()
        self._turn_old_task()
        self.counts.ended(str(asked))

    def commit(self, asked: Asked) -> None:
        """Ask for a new version."""
        self._version += 1
        self.site.commit(f"{self._version}.0", TEXTS[asked])

    def settle(self, asked: Asked, before: str | None) -> None:
        """Wait until the site is at rest in the state that it must reach."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.go_on()
            try:
                check_at_rest(self.site, self.records(), asked, before)
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def records(self) -> Records:
        """Read the records, and check their newest history."""
        store = self.store()
        try:
            check_history(store.events(kinds=sorted(ENDS), newest_first=True))
            return store.load()
        finally:
            store.close()

    def store(self) -> Store:
        """Return the records of this lane's daemons."""
        return Store(self.variables.get("GROUNDCREW_DATABASE", self.site.database))

    def check_now(self) -> None:
        """Check the promises that hold at any moment; no daemon runs."""
        check_always(self.site, self.records())

    # ------------------------------------------------------------------------------- checks

    def _check_files(self) -> None:
        check_secrets([self.share.path, self.state.path, self.log])
        text = self.log.read_text(errors="replace")
        assert "Traceback" not in text, "a daemon logged a bug"

    def _shorten_log(self) -> None:
        if self.log.stat().st_size > LOG_LIMIT:
            self.log.write_text(self.log.read_text(errors="replace")[-LOG_LIMIT // 4 :])

    def _turn_old_task(self) -> None:
        """Let a task run through several rounds; it must keep its build, whatever is collected."""
        if self._old_task is not None and self.random.random() < 0.7:
            return
        if self._old_task is not None:
            _check_task(self._old_task)
            self._old_task.kill()
        self._old_task = Task(self.site)

    def age_share(self) -> None:
        """Make everything on the share a day older, so that it may be collected."""
        then = time.time() - DAY
        for top in (self.share.path / "builds", self.share.path / "store" / "sha256"):
            for path in sorted(top.rglob("*"), reverse=True):
                os.utime(path, (then, then), follow_symlinks=False)


def _check_task(task: Task) -> None:
    began = task.began
    assert task.end() == began, f"a task that began with {began} saw another build"
