"""Daemon with one loop and bounded workers.

Each cycle applies the reports of finished effects to the records, decides from the current state,
records the intent, and starts effects. Events (a webhook, a changed ref, a finished effect, an
operator's request) only wake the loop. Everything it knows is in the records, so it can be killed
at any instruction.
"""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TypeVar

from metrics.exporter import PollResult
from reconciler.core.accept import source_failed, source_recovered
from reconciler.core.builds import maker, users
from reconciler.core.definitions import Definitions, Instance
from reconciler.core.drift import Sight, record_share, record_sights
from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.core.incremental import NOTHING, Decider
from reconciler.core.model import Change, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.status import Status
from reconciler.core.statuses import status
from reconciler.core.world import Draft, Effect, Plan, World
from reconciler.daemon.effects import BuildTask, Polled, Report, nothing, problem_of
from reconciler.daemon.garbage import collect_and_measure
from reconciler.daemon.leadership import Leadership
from reconciler.daemon.lock_keys import lock_key
from reconciler.daemon.observer import Observer
from reconciler.daemon.outside import Outside
from reconciler.daemon.service import Service
from reconciler.daemon.wiring import Wiring
from reconciler.daemon.workers import Workers
from reconciler.failpoints import failpoint
from reconciler.settings import Settings
from reconciler.store import wakes
from reconciler.store.errors import DatabaseUnavailable
from reconciler.store.reader import Reader

log = logging.getLogger(__name__)

T = TypeVar("T")

STANDBY_LOOK = 5.0  # seconds between two reads of the records while another daemon leads
STOP_WAIT = 30.0  # seconds that running steps get to finish on SIGTERM
LONGEST_SLEEP = 60.0
DATABASE_RETRY = 2.0  # seconds between two attempts to reach the database at the start
GC_AGAIN = 30.0  # seconds until an incomplete collection continues
POLL = ("poll", "")
LOOK = ("look", "")
QUIET = ("poll", "gc", "look")  # effects that do not count as work in progress


class Daemon:
    """Reconciler that runs until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.wiring = Wiring(settings)
        self.wiring.wake = self._changed_outside
        self._reader = Reader(self.wiring.store)
        self._decider = Decider()
        self._observer = Observer(Outside(self.wiring))
        self.wiring.records = lambda: self._records
        self.definitions: Definitions | None = None
        self._wakeup = threading.Event()
        self._stop = threading.Event()
        self._workers: Workers[Report] = Workers(
            self.wake,
            {
                "build": settings.builder.parallel,
                "activation": settings.activation.parallel,
                "other": 4,
            },
        )
        self._next_poll = 0.0  # monotonic time, like the following
        self._next_gc = time.monotonic() + settings.gc.interval
        self._polled = False
        self._is_looking = False  # a first look outside has begun
        self._has_looked = False  # and what it saw is in the records
        self._decided = False  # using the result of the first poll
        self._wake_at: float | None = None  # monotonic time
        self._records = Records()
        self.last_cycle = time.monotonic()
        self.ended = True  # set by `run`; False: what may still run must end with the process
        self._looked = 0.0

    # ------------------------------------------------------------------------------- public

    def wake(self) -> None:
        """Wake the loop at once."""
        self._wakeup.set()

    def _changed_outside(self) -> None:
        self._observer.again()
        self.wake()

    def poll_now(self) -> None:
        """Poll the environments repo at once, because of a webhook or a changed ref.

        A standby notifies the leader through the database.
        """
        self._next_poll = 0.0
        self.wake()
        if not self.wiring.leading:
            engine = self.wiring.store.engine
            threading.Thread(target=wakes.tell, args=(engine, wakes.POLL), daemon=True).start()

    def stop(self) -> None:
        """Leave the loop cleanly: running steps finish, and nothing new is started."""
        self._stop.set()
        self.wake()

    def status(self) -> Status:
        """Return the current status of all objects."""
        return status(self.definitions, self._records, time.time())

    @property
    def records(self) -> Records:
        """Return the records as of the last cycle."""
        return self._records

    def prepare(self, *, wait: bool) -> None:
        """Create what the loop needs; with `wait`, wait for a database that does not respond."""
        self._retry(self.wiring.prepare, wait=wait)

    def _retry(self, action: Callable[[], T], *, wait: bool) -> T:
        """Return the result of an action, repeated with `wait` until the database responds."""
        while True:
            try:
                return action()
            except DatabaseUnavailable as error:
                if not wait or self._stop.is_set():
                    raise
                log.warning("%s; trying again", error)
                self._stop.wait(DATABASE_RETRY)

    def run(self, once: bool = False) -> int:
        """Reconcile until stopped, or with `once` until nothing is left to do.

        Returns the exit code: 0 done, 1 `once` ended with a problem, 3 the lease was lost.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._signalled)
        self.prepare(wait=not once)
        with Leadership(self.wiring.store, self.settings, self._stop, self._stand_by) as leadership:
            if leadership.lease is None:
                return 0
            self._records = self._retry(lambda: self._reader.load(whole=True), wait=not once)
            if not self._records.builds:
                log.info("no builds are recorded; %d can be adopted", self.wiring.adoption.look())
            self.wiring.leading = True
            self.wiring.check = leadership.check
            self._workers.start("other", ("gc", "size"), lambda _: self._measure())
            self._workers.start("other", ("gc", "sweep"), lambda _: self._sweep())
            service = Service(self, self.wiring)
            try:
                if not once:
                    service.start()
                self._loop(leadership, once=once)
            finally:
                self.wiring.leading = False
                wait = 0.0 if leadership.lost else STOP_WAIT  # nothing more may be done
                clean = self._workers.stop(lambda key: key[0] == "build", wait)
                self.ended = clean and not leadership.lost
                if self.ended:
                    self._take_last_reports(leadership)
                else:
                    leadership.abandon()
                self.wiring.close()
                service.stop()
            if leadership.lost:
                return 3
        return self._verdict() if once else 0

    def _stand_by(self) -> None:
        """Refresh the displayed records while another daemon leads, ready to take over."""
        self.last_cycle = time.monotonic()
        if self.last_cycle - self._looked > STANDBY_LOOK:
            self._looked = self.last_cycle
            self._records = self._reader.load()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        log.info("%s: stopping", signal.Signals(number).name)
        self.stop()

    def _verdict(self) -> int:
        snapshot = self.status()
        return 1 if snapshot.problem or snapshot.findings or snapshot.is_wrong else 0

    # --------------------------------------------------------------------------------- loop

    def _loop(self, leadership: Leadership, *, once: bool) -> None:
        while not self._stop.is_set() and not leadership.lost:
            begun = time.monotonic()
            self._wakeup.clear()
            try:
                plan = self._cycle(leadership)
            except Retryable as error:
                self._decider.forget()
                log.warning("%s; looking again", error)
                self._sleep(error.after or 1.0)
                continue
            except Exception:
                self._decider.forget()
                log.exception("a cycle failed in a way that nobody expected; looking again")
                self._sleep(5.0)
                continue
            self.last_cycle = time.monotonic()
            self.wiring.exporter.observe_reconcile(self.last_cycle - begun)
            if once and self._finished(plan):
                return
            self._sleep(self._until_next())

    def _sleep(self, seconds: float) -> None:
        self._wakeup.wait(max(0.0, min(seconds, LONGEST_SLEEP)))

    def _until_next(self) -> float:
        now = time.monotonic()
        waits = [self._next_gc - now]
        if POLL not in self._workers.busy():  # else its end wakes the loop
            waits.append(self._next_poll - now)
        if self._wake_at is not None:
            waits.append(self._wake_at - now)
        return min(waits)

    def _finished(self, plan: Plan) -> bool:
        """Return True if everything was read and nothing is in progress or about to start."""
        busy = any(key[0] not in QUIET for key in self._workers.unfinished())
        if not self._has_looked:
            return False
        active = any(i.activation is not None for i in self._records.instances.values())
        retrying = any(b.phase is BuildPhase.QUEUED for b in self._records.builds.values())
        return self._decided and not (busy or active or retrying or plan.effects)

    def _cycle(self, leadership: Leadership) -> Plan:
        has_looked = self._is_looking and LOOK not in self._workers.busy()  # its report is there
        self._take_reports(leadership)
        self._has_looked = self._has_looked or has_looked
        self._poll_if_due()
        decided = time.monotonic()
        world = self._observe()
        plan = self._decider.decide(world)
        failpoint("daemon.decided")
        self._write(leadership, plan)
        self._decider.done()
        self._decided = self._polled
        failpoint("daemon.recorded")
        for key in plan.cancels:
            self._workers.cancel(("build", key))
        leadership.check()
        for effect in plan.effects:
            self._start(effect)
        self._collect_if_due()
        self._look_if_due()
        # Monotonic, so that the clock may be set while it waits.
        wake_at = plan.wake_at
        self._wake_at = decided + (wake_at - world.now) if wake_at is not None else None
        return plan

    def _take_reports(self, leadership: Leadership) -> None:
        reports = self._workers.reports()
        for report in reports:
            self._learn(report)
        self._records = self._reader.load()
        self._drop_lost_builds(leadership)
        if all(report.apply is nothing for report in reports):
            return
        draft = Draft(
            World(
                time.time(),
                self._records,
                fingerprints=self._observer.marks(self._records),
                policy=self.wiring.policy,
            )
        )
        locks: dict[tuple[str, str], str] = {}
        for report in reports:
            report.apply(draft)
            locks.update(report.locks)
        plan = draft.plan()
        plan = replace(plan, change=replace(plan.change, locks=locks))
        failpoint("daemon.outcome.before")
        self._write(leadership, plan)
        failpoint("daemon.outcome.after")

    def _learn(self, report: Report) -> None:
        """Take the parts of a report that are for the loop and not for the records."""
        if report.polled is not None:
            self._polled = True
            if report.polled.definitions is not None:
                if self.definitions is None:
                    gc.freeze()  # so that collections do not traverse what is held from now on
                self.definitions = report.polled.definitions
        if report.collect_again:
            self._next_gc = time.monotonic() + GC_AGAIN

    def _take_last_reports(self, leadership: Leadership) -> None:
        """Record effects that have just finished; the next start finds those not recorded."""
        try:
            self._take_reports(leadership)
        except GroundcrewError as error:
            log.warning("what ended last is not recorded: %s", error)

    def _drop_lost_builds(self, leadership: Leadership) -> None:
        """Drop builds with unreadable rows: their results are found again, or rebuilt."""
        lost = [n for n in self._records.unreadable if n.startswith("build/")]
        if lost:
            log.error("%d builds cannot be read and are forgotten: %s", len(lost), sorted(lost)[:5])
            keys = tuple(name.removeprefix("build/") for name in sorted(lost))
            self._write(leadership, Plan(Change(drop_builds=keys), (), (), None))

    def _write(self, leadership: Leadership, plan: Plan) -> None:
        """Record a plan's change, if there is any."""
        if plan.change == NOTHING:
            return
        self._reader.wrote(plan.change, leadership.write(plan.change))
        self._records = self._reader.load()
        self.wiring.notifier.enqueue()

    def _observe(self) -> World:
        now = time.time()
        return World(
            now=now,
            records=self._records,
            definitions=self.definitions,
            requests=tuple(self.wiring.store.requests()),
            fingerprints=self._observer.marks(self._records),
            windows=self._observer.windows(self._records, now),
            missing_builds=self._observer.missing(self._records),
            policy=self.wiring.policy,
        )

    # ------------------------------------------------------------------------------ effects

    def _start(self, effect: Effect) -> None:
        records = self._records
        if effect.kind == "heal":
            record = records.instances[effect.key]
            self._workers.start(
                _pool("activation", record.definition),
                ("perform", effect.key),  # never beside a step of an activation
                lambda _: self.wiring.instance_effects.heal(record),
            )
        elif effect.kind == "inspect":
            record = records.instances[effect.key]
            self._workers.start(
                _pool("other", record.definition),
                ("inspect", effect.key),
                lambda _: self.wiring.instance_effects.inspect(record, self._observer.inspected),
            )
        elif effect.kind == "perform":
            record = records.instances[effect.key]
            self._workers.start(
                _pool("activation", record.definition),
                ("perform", effect.key),
                lambda _: self.wiring.instance_effects.perform(record, time.time()),
            )
        else:
            task = self._build_task(effect.key)
            if task is not None:
                kind = effect.kind
                self._workers.start(
                    _pool("build", task.instance),
                    ("build", effect.key),
                    lambda cancelled: self.wiring.build_effects.run(kind, task, cancelled),
                )

    def _build_task(self, key: str) -> BuildTask | None:
        build = self._records.builds[key]
        environment = self._records.environments.get(build.environment)
        if environment is None:
            return None
        record = maker(build, environment, self._records.instances)
        if record is None or record.runtime is None:
            return None
        return BuildTask(
            build,
            environment.definition,
            record.definition,
            record.runtime,
            lock_key(environment.definition),
            self.wiring.log_of(key),
            tuple(r.definition for r in users(build, environment, self._records.instances)),
        )

    def _poll_if_due(self) -> None:
        if time.monotonic() < self._next_poll:
            return
        if self._workers.start("other", POLL, lambda _: self._poll()):
            self._next_poll = time.monotonic() + self.settings.git.poll_interval

    def _poll(self) -> Report:
        try:
            definitions = self.wiring.source.poll()
        except Exception as error:
            if not isinstance(error, GroundcrewError):
                log.exception("polling the environments repo")
            problem = problem_of(error)
            self.wiring.exporter.observe_poll(PollResult.FAILED)
            return Report(lambda draft: source_failed(draft, problem), polled=Polled(None))
        changed = definitions is not None
        self.wiring.exporter.observe_poll(PollResult.CHANGED if changed else PollResult.UNCHANGED)
        recovered = definitions is not None or self._records.repo.source_problem is not None
        return Report(source_recovered if recovered else nothing, polled=Polled(definitions))

    def _look_if_due(self) -> None:
        if self._observer.due():
            records = self._records
            self._is_looking |= self._workers.start("other", LOOK, lambda _: self._look(records))

    def _look(self, records: Records) -> Report | None:
        """Look outside; the report says only what the records do not say yet."""
        problem, sights = None, dict[str, Sight]()
        try:
            seen = self._observer.look(records)
        except GroundcrewError as error:
            if error.reason is not Reason.SHARE_MISSING:
                log.warning("%s", error)
                return None
            problem = problem_of(error)
        else:
            sights = dict(seen.sights)
            if seen.changed:
                self.wake()

        def apply(draft: Draft) -> None:
            record_share(draft, problem)
            record_sights(draft, sights)

        draft = Draft(World(time.time(), records, policy=self.wiring.policy))
        apply(draft)
        return Report(apply) if draft.plan().change != NOTHING else None

    def _collect_if_due(self) -> None:
        if time.monotonic() < self._next_gc:
            return
        self._next_gc = time.monotonic() + self.settings.gc.interval
        records = self._records
        self._workers.start("other", ("gc", ""), lambda _: self._collect(records))

    def _sweep(self) -> None:
        try:
            self._retry(self.wiring.sweep, wait=True)
        except GroundcrewError as error:
            log.warning("Jobs of an earlier leader may still run: %s", error)

    def _measure(self) -> None:
        try:
            self.wiring.measure()
        except GroundcrewError as error:
            log.warning("%s", error)

    def _collect(self, records: Records) -> Report | None:
        return collect_and_measure(self.wiring, records)


def _pool(kind: str, instance: Instance) -> str:
    """Return the pool of a task. Each cluster has its own threads, so that none delays another."""
    return f"{kind}@{instance.site}" if instance.site else kind
