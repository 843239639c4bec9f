"""Two daemons with their records in PostgreSQL: one leads, and is killed, frozen or cut off."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerProcess

import psutil
from sqlalchemy.exc import DBAPIError

from reconciler.core.errors import Retryable
from tests.chaos.counts import KILLED
from tests.chaos.lane import PATIENCE, Lane
from tests.harness.forked import Run, end, start
from tests.harness.postgres import Postgres
from tests.harness.promises import Asked

LEASE_TTL = 4.0  # seconds; on a busy machine a shorter lease is lost without any fault
LEASE_LOST = 3  # exit code
LOOK = 0.5  # seconds between two checks of the records
POINTS = (  # where a leader is killed or frozen, right before or after a change
    "daemon.decided",
    "daemon.recorded",
    "daemon.outcome.before",
    "store.before-commit",
    "store.after-commit",
    "builder.resolved",
    "share.put_build.before-rename",
    "share.mark_verified.before-rename",
    "airflow.pause.pool",
    "share.point.before-rename",
    "share.point.after-rename",
    "airflow.restart.components",
    "airflow.release.pool",
    "daemon.switch.after",
    "daemon.probe.before",
    "daemon.release.after",
)


class Replicas(Lane):
    """Two replicas that always run; one that ended is started again before the next round."""

    def prepare(self) -> None:
        """Start the database and bring the site to rest."""
        folder = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="groundcrew-pg-"))
        self.postgres = Postgres(folder)
        self._closing.callback(self.postgres.close)
        self.variables |= {
            "GROUNDCREW_DATABASE": self.postgres.url,
            "GROUNDCREW_LEASE_TTL": str(LEASE_TTL),
        }
        self.daemons: list[ForkServerProcess] = []
        self._closing.callback(self.rest)
        self.commit(Asked.GOOD)
        self._begin()
        self._leader()
        self.settle(Asked.GOOD, None)
        self.rest()

    def _begin(self, failpoint: str = "", *, freezes: bool = False) -> None:
        """Start both, in place of those that run; they die or freeze at the failpoint."""
        self.rest()
        self.daemons = [self._start(n, failpoint, freezes) for n in range(2)]

    def _start(self, number: int, failpoint: str = "", freezes: bool = False) -> ForkServerProcess:
        state = self.state.path / str(number)
        run = Run(
            once=False,
            failpoint=failpoint,
            freezes=freezes,
            variables={**self.variables, "GROUNDCREW_STATE_DIR": str(state)},
        )
        return start(self.site.config, self.log, run)

    def go_on(self) -> None:
        """Start replicas that have ended; both work while this waits."""
        for number, daemon in enumerate(self.daemons):
            if not daemon.is_alive():
                self.daemons[number] = self._start(number)
        if not self.daemons:
            self._begin()
        time.sleep(LOOK)

    def rest(self) -> None:
        """Kill both: the next round begins with a lease that was not released."""
        for daemon in self.daemons:
            if daemon.is_alive():
                daemon.kill()
                self.counts.killed("at rest")
            daemon.join()
        self.daemons = []

    def disturb(self, asked: Asked) -> None:
        """Kill, freeze or cut off the leader."""
        choices = [self._kill, self._kill_at_a_point, *self.faults()]
        self.random.choice(choices)(asked)

    def faults(self) -> list[Callable[[Asked], None]]:
        """Return freezes, and faults of the database and of git."""
        return [self._freeze, self._freeze_at_a_point, self._restart_database, self._cut_git]

    # -------------------------------------------------------------------------------- kills

    def _kill(self, _: Asked) -> None:
        self._begin()
        seconds = self.random.uniform(0.0, 4.0)
        self.now = f"kill -9 of the leader after {seconds:.2f} s"
        leader = self._leader()
        time.sleep(seconds)
        leader.kill()
        leader.join()
        self.counts.killed("the leader, at random")

    def _kill_at_a_point(self, _: Asked) -> None:
        """Kill the leader at a failpoint, and its successor at the same one."""
        point = self.random.choice(POINTS)
        self.now = f"kill -9 of each leader at {point}"
        self._begin(point)
        deadline = time.monotonic() + 4 * LEASE_TTL
        while time.monotonic() < deadline and any(d.is_alive() for d in self.daemons):
            time.sleep(LOOK)
        for daemon in self.daemons:
            if daemon.exitcode == KILLED:
                self.counts.killed(f"the leader, at {point}")
        self._replace_armed()

    def _replace_armed(self) -> None:
        """Kill replicas that still wait at a failpoint, so that only others continue."""
        for daemon in self.daemons:
            if daemon.is_alive():
                daemon.kill()
                self.counts.killed("at random")
            daemon.join()
        self._begin()

    # ------------------------------------------------------------------------------- freezes

    def _freeze(self, _: Asked) -> None:
        self._begin()
        seconds = self.random.uniform(0.0, 4.0)
        self.now = f"freeze the leader after {seconds:.2f} s"
        leader = self._leader()
        time.sleep(seconds)
        self._thaw(leader)

    def _freeze_at_a_point(self, _: Asked) -> None:
        """Freeze the leader at a failpoint; the other replica has none."""
        point = self.random.choice(POINTS)
        self.now = f"freeze the leader at {point}"
        self.rest()
        frozen = self._start(0, point, freezes=True)
        self.daemons = [frozen]
        led = self._leads_before_it_stops(frozen)
        self.daemons.append(self._start(1))
        deadline = time.monotonic() + 4 * LEASE_TTL
        while time.monotonic() < deadline and frozen.is_alive() and not _is_stopped(frozen):
            time.sleep(LOOK)
        if _is_stopped(frozen):
            self._thaw(frozen, led=led)
        else:
            frozen.kill()
            frozen.join()
            self.counts.killed("at random")

    def _leads_before_it_stops(self, daemon: ForkServerProcess) -> bool:
        """Wait until the only replica leads, or is frozen in the transaction that would do it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._holder().endswith(f":{daemon.pid}"):
                return True
            if _is_stopped(daemon):
                return False
            time.sleep(LOOK / 2)
        raise AssertionError("the only replica does not lead")

    def _thaw(self, leader: ForkServerProcess, *, led: bool = True) -> None:
        """Freeze a leader until another one leads; then it must do nothing more, and end.

        One that did not lead yet may wait for the lease again.
        """
        assert leader.pid is not None
        with suppress(ProcessLookupError):
            os.kill(leader.pid, signal.SIGSTOP)
        try:
            other = self._leader(but=leader)
            time.sleep(self.random.uniform(0.0, 3.0))
            assert other.is_alive()
        finally:
            os.kill(leader.pid, signal.SIGCONT)
        if not led:
            leader.kill()
            leader.join()
            self.counts.failed("a replica: frozen while it takes the lease")
            return
        code = end(leader, self.log)
        assert code == LEASE_LOST, f"a leader that was frozen ended with {code}"
        self.counts.failed("the leader: frozen until another leads")

    def _leader(self, but: ForkServerProcess | None = None) -> ForkServerProcess:
        """Wait until one leads, and return it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            holder = self._holder()
            for daemon in self.daemons:
                if daemon is not but and holder.endswith(f":{daemon.pid}"):
                    return daemon
            time.sleep(LOOK / 2)
        raise AssertionError("nobody leads")

    def _holder(self) -> str:
        store = self.store()
        try:
            return store.leader() or ""
        except (Retryable, DBAPIError):  # there are no tables yet
            return ""
        finally:
            store.close()

    # ------------------------------------------------------------------------------- faults

    def _restart_database(self, _: Asked) -> None:
        self._begin()
        mode = self.random.choice(["fast", "immediate"])
        before, away = self.random.uniform(0.0, 4.0), self.random.uniform(0.0, 2 * LEASE_TTL)
        self.now = f"PostgreSQL: {mode} after {before:.2f} s, away for {away:.2f} s"
        self._leader()
        time.sleep(before)
        self.postgres.stop(mode)
        time.sleep(away)
        self.postgres.start()
        self.counts.failed(f"PostgreSQL: restarted ({mode})")

    def _cut_git(self, asked: Asked) -> None:
        del asked
        self.now = "git: cut"
        before = self.git.cuts
        self.git.cut_after(*(self.random.randint(0, 2000) for _ in range(3)))
        self._begin()
        self._leader()
        time.sleep(2.0)
        self.git.cut_after()
        for _ in range(self.git.cuts - before):
            self.counts.failed("git: cut in the middle")


def _is_stopped(process: ForkServerProcess) -> bool:
    with suppress(psutil.Error):
        return bool(psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    return False
