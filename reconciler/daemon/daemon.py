"""The daemon: one loop, bounded workers.

Each cycle takes the reports of ended effects into the records, decides from what is, records the
intent, and starts effects. Events (a webhook, a changed ref, an ended effect, an operator's
request) only wake the loop. Everything it knows is in the records, so it can be killed at any
instruction.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from dataclasses import replace
from types import FrameType

from reconciler.core.decide import decide
from reconciler.core.definitions import Definitions, Instance
from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.core.model import Problem, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.status import Status, status
from reconciler.core.world import REPO, Draft, Effect, Plan, World
from reconciler.daemon.effects import BuildTask, Report, problem_of
from reconciler.daemon.garbage import collect
from reconciler.daemon.leadership import Leadership
from reconciler.daemon.rooms import Rooms
from reconciler.daemon.service import Service
from reconciler.daemon.windows import window_state
from reconciler.daemon.workers import Workers
from reconciler.faults import failpoint
from reconciler.settings import Settings

log = logging.getLogger(__name__)

STOP_WAIT = 30.0  # seconds that running steps get to end on SIGTERM
LONGEST_SLEEP = 60.0
QUIET = ("poll", "gc")  # effects that do not count as work under way


class Daemon:
    """Reconciles until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rooms = Rooms(settings)
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
        self._next_poll = 0.0
        self._next_gc = time.time() + settings.gc.interval
        self._polled = False
        self._wake_at: float | None = None
        self._records = Records()
        self.last_cycle = time.monotonic()

    # ------------------------------------------------------------------------------ outside

    def wake(self) -> None:
        """Look again at once."""
        self._wakeup.set()

    def poll_now(self) -> None:
        """Look at the environments repo at once: a webhook, or a changed ref."""
        self._next_poll = 0.0
        self.wake()

    def stop(self) -> None:
        """Leave the loop cleanly: running steps end, nothing new is started."""
        self._stop.set()
        self.wake()

    def status(self) -> Status:
        """How everything stands."""
        return status(self.definitions, self._records, time.time())

    @property
    def records(self) -> Records:
        """The records as of the last cycle."""
        return self._records

    def run(self, once: bool = False) -> int:
        """Reconcile until stopped, or with `once` until nothing is left to do.

        Returns the exit code: 0 done, 1 `once` ended with something wrong, 3 the lease was lost.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._signalled)
        self.rooms.prepare()
        with Leadership(self.rooms.store, self.settings, self._stop) as leadership:
            if leadership.lease is None:
                return 0
            if not self.rooms.store.load().builds:
                log.info("no builds are recorded; %d can be adopted", self.rooms.adoption.look())
            self.rooms.leading = True
            self._workers.start("other", ("gc", "size"), lambda _: self._measure())
            service = Service(self, self.rooms)
            try:
                if not once:
                    service.start()
                self._loop(leadership, once=once)
            finally:
                self.rooms.leading = False
                clean = self._workers.stop(lambda key: key[0] == "build", STOP_WAIT)
                if clean:
                    self._take_reports(leadership)
                service.stop()
            if leadership.lost:
                return 3
        return self._verdict() if once else 0

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        log.info("%s: stopping", signal.Signals(number).name)
        self.stop()

    def _verdict(self) -> int:
        found = self.status()
        conditions = [c for e in found.environments for c in e.conditions]
        conditions += [c for i in found.instances for c in i.conditions]
        stalled = any(c.type == "Stalled" and c.status for c in conditions)
        return 1 if found.problem or found.findings or stalled else 0

    # --------------------------------------------------------------------------------- loop

    def _loop(self, leadership: Leadership, *, once: bool) -> None:
        while not self._stop.is_set() and not leadership.lost:
            begun = time.monotonic()
            self._wakeup.clear()
            try:
                plan = self._cycle(leadership)
            except Retryable as error:
                log.warning("%s; looking again", error)
                self._sleep(error.after or 1.0)
                continue
            except Exception:
                log.exception("a cycle failed in a way that nobody expected; looking again")
                self._sleep(5.0)
                continue
            self.last_cycle = time.monotonic()
            self.rooms.exporter.observe_reconcile(self.last_cycle - begun)
            if once and self._finished(plan):
                return
            self._sleep(self._until_next())

    def _sleep(self, seconds: float) -> None:
        self._wakeup.wait(max(0.0, min(seconds, LONGEST_SLEEP)))

    def _until_next(self) -> float:
        times = [self._next_poll, self._next_gc]
        if self._wake_at is not None:
            times.append(self._wake_at)
        return min(times) - time.time()

    def _finished(self, plan: Plan) -> bool:
        """Was everything read, and is nothing under way nor about to start."""
        busy = any(key[0] not in QUIET for key in self._workers.busy())
        active = any(i.activation is not None for i in self._records.instances.values())
        retrying = any(b.phase is BuildPhase.QUEUED for b in self._records.builds.values())
        return self._polled and not (busy or active or retrying or plan.effects)

    def _cycle(self, leadership: Leadership) -> Plan:
        self._take_reports(leadership)
        self._poll_if_due()
        world = self._observe()
        plan = decide(world)
        failpoint("daemon.decided")
        if self._write(leadership, plan):
            self._records = self.rooms.store.load()
        failpoint("daemon.recorded")
        for key in plan.cancels:
            self._workers.cancel(("build", key))
        leadership.check()
        for effect in plan.effects:
            self._start(effect)
        self._collect_if_due()
        self._wake_at = plan.wake_at
        return plan

    def _take_reports(self, leadership: Leadership) -> None:
        reports = self._workers.reports()
        self._records = self.rooms.store.load()
        if not reports:
            return
        draft = Draft(World(time.time(), self._records, policy=self.rooms.policy))
        locks: dict[tuple[str, str], str] = {}
        for report in reports:
            report.apply(draft)
            locks.update(report.locks)
        plan = draft.plan()
        plan = replace(plan, change=replace(plan.change, locks=locks))
        failpoint("daemon.outcome.before")
        self._write(leadership, plan)
        failpoint("daemon.outcome.after")
        self._records = self.rooms.store.load()

    def _write(self, leadership: Leadership, plan: Plan) -> bool:
        """Record a plan's change; False if there was nothing to record."""
        if plan.change == NOTHING:
            return False
        leadership.write(plan.change)
        self.rooms.notifier.enqueue()
        return True

    def _observe(self) -> World:
        now = time.time()
        instances = self._records.instances.values()
        ready = {
            (b.build_id, b.runtime_key)
            for b in self._records.builds.values()
            if b.phase is BuildPhase.READY and b.build_id is not None
        }
        current = {i.current for i in instances}
        return World(
            now=now,
            records=self._records,
            definitions=self.definitions,
            requests=tuple(self.rooms.store.requests()),
            fingerprints={i.name: m for i in instances if (m := self._mark(i.definition))},
            windows={
                i.name: window_state(i.definition.window, now)
                for i in instances
                if i.definition.window is not None
            },
            missing_builds=frozenset(
                build
                for build, runtime in ready
                if build not in current and not self.rooms.share.verified(build, runtime)
            ),
            policy=self.rooms.policy,
        )

    def _mark(self, instance: Instance) -> str:
        try:
            return self.rooms.driver(instance).fingerprint(instance)
        except GroundcrewError:
            return ""

    # ------------------------------------------------------------------------------ effects

    def _start(self, effect: Effect) -> None:
        records = self._records
        if effect.kind == "inspect":
            record = records.instances[effect.key]
            self._workers.start(
                "other",
                ("inspect", effect.key),
                lambda _: self.rooms.instance_effects.inspect(record),
            )
        elif effect.kind == "perform":
            record = records.instances[effect.key]
            self._workers.start(
                "activation",
                ("perform", effect.key),
                lambda _: self.rooms.instance_effects.perform(record, time.time()),
            )
        else:
            task = self._build_task(effect.key)
            if task is not None:
                kind = effect.kind
                self._workers.start(
                    "build",
                    ("build", effect.key),
                    lambda cancelled: self.rooms.build_effects.run(kind, task, cancelled),
                )

    def _build_task(self, key: str) -> BuildTask | None:
        build = self._records.builds[key]
        environment = self._records.environments.get(build.environment)
        if environment is None:
            return None
        names = [n for wave in environment.definition.rollout for n in wave.instances]
        for name in names:
            record = self._records.instances.get(name)
            if record and record.runtime and record.runtime.key == build.runtime_key:
                return BuildTask(
                    build,
                    environment.definition,
                    record.definition,
                    record.runtime,
                    self.rooms.lock_key(environment.definition),
                    self.rooms.log_of(key),
                )
        return None

    def _poll_if_due(self) -> None:
        if time.time() < self._next_poll:
            return
        if self._workers.start("other", ("poll", ""), lambda _: self._poll()):
            self._next_poll = time.time() + self.settings.git.poll_interval

    def _poll(self) -> Report | None:
        try:
            found = self.rooms.source.poll()
        except Exception as error:
            if not isinstance(error, GroundcrewError):
                log.exception("polling the environments repo")
            problem = problem_of(error)
            self.rooms.exporter.observe_poll("failed")
            self._polled = True
            return Report(lambda draft: _source_failed(draft, problem))
        self._polled = True
        self.rooms.exporter.observe_poll("changed" if found is not None else "unchanged")
        if found is not None:
            self.definitions = found
        elif self._records.source_problem is None:
            return None
        return Report(_source_recovered)

    def _collect_if_due(self) -> None:
        if time.time() < self._next_gc:
            return
        self._next_gc = time.time() + self.settings.gc.interval
        records = self._records
        self._workers.start("other", ("gc", ""), lambda _: self._collect(records))

    def _measure(self) -> None:
        try:
            self.rooms.measure()
        except GroundcrewError as error:
            log.warning("%s", error)

    def _collect(self, records: Records) -> Report:
        try:
            done = collect(self.rooms, records, time.time(), dry_run=False)
            self.rooms.measure()
        except GroundcrewError as error:
            problem = problem_of(error)
            return Report(
                lambda draft: draft.event(
                    "GarbageFailed", REPO, problem.message, reason=problem.reason
                )
            )
        words = f"{len(done.builds)} builds, {len(done.entries)} store entries, {done.bytes} bytes"
        data: dict[str, object] = {"builds": len(done.builds), "bytes": done.bytes}
        return Report(lambda draft: draft.event("GarbageCollected", REPO, words, data=data))


NOTHING = Draft(World(0.0, Records())).plan().change


def _source_failed(draft: Draft, problem: Problem) -> None:
    held = draft.repo.source_problem
    if held is not None and (held.reason == "PruneHeld" or held.reason == problem.reason):
        return
    draft.repo = replace(draft.repo, source_problem=problem)
    draft.event("SourceFailed", REPO, problem.message, reason=problem.reason)


def _source_recovered(draft: Draft) -> None:
    held = draft.repo.source_problem
    if held is not None and held.reason != "PruneHeld":
        draft.repo = replace(draft.repo, source_problem=None)
        draft.event("SourceRecovered", REPO, "the environments repo answers again")
