"""Simulated world for the core: a share, instances and operators in memory, with faults.

It carries out the effects that `decide` requests, halfway if a test wants that, and asserts the
promises at the moments at which they could be broken. The behaviour of a build follows from the
first letter of its recipe digest: `g` is good, `r` does not resolve, `v` fails verification, `l`
fails on the live instance, `w` fails there once tasks run, `d` never lets the instance drain.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from reconciler.airflow.steps import gate_timeout
from reconciler.core.budget import demanded, exceeded, refusal
from reconciler.core.builds import BuildOutcome, record_build, users
from reconciler.core.decide import decide, record_inspection
from reconciler.core.definitions import Commit, Definitions, Environment, Finding, Instance
from reconciler.core.events import Event
from reconciler.core.incremental import Decider
from reconciler.core.model import (
    Activation,
    BuildRecord,
    Change,
    DagCheck,
    ImportCost,
    InstanceRecord,
    Options,
    Problem,
    Records,
    Request,
    StepResult,
    Verb,
)
from reconciler.core.patience import Patience
from reconciler.core.phases import BuildPhase, Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Switch
from reconciler.core.runtime import Runtime
from reconciler.core.steps import record_step
from reconciler.core.world import Draft, Effect, Plan, Policy, World
from tests.fakes.airflow import LAYOUT, Airflow, content
from tests.harness.machine import check_record, check_update

LOOKS = 6  # number of checks within a probe's limit, at least
STEP_LIMIT = 600.0
POLICY = Policy(retry_first=5.0, retry_most=60.0)


def cost(digest: str) -> ImportCost:
    """Return the import cost of a recipe's build: its last digit is the files in hundreds."""
    files = 100 * int(digest[-1])
    return ImportCost(files, 3 * files, files << 14, files / 100)


def stored(records: Records, change: Change) -> Records:
    """Return the records after a change, as the store would keep them."""
    environments, instances = dict(records.environments), dict(records.instances)
    builds = dict(records.builds)
    for environment in change.environments:
        environments[environment.name] = replace(environment, version=environment.version + 1)
    for one in change.instances:
        instances[one.name] = replace(one, version=one.version + 1)
    for build in change.builds:
        builds[build.key] = replace(build, version=build.version + 1)
    for name in change.drop_environments:
        del environments[name]
    for name in change.drop_instances:
        del instances[name]
    for key in change.drop_builds:
        del builds[key]
    repo = change.repo or records.repo
    return Records(environments, instances, builds, repo, records.unreadable)


def told(plan: Plan) -> object:
    """Return the contents of a plan, independent of their order."""
    c = plan.change
    parts = (c.environments, c.instances, c.builds, c.drop_environments, c.drop_instances)
    more = (c.drop_builds, c.events, plan.effects, plan.cancels)
    return (
        [sorted(map(repr, part)) for part in (*parts, *more)],
        c.repo,
        c.finished_requests,
        plan.wake_at,
    )


class House:
    """Everything outside the core; `faults` contains the current faults.

    They are "build", "api" (Airflow is silent), "credentials" (it rejects ours), "restart", "image"
    and "share". `failed_live` are the instances and builds that really failed there: a restart that
    ended with an error, a component that was down, or an Airflow that was silent at each of at
    least LOOKS checks by one process.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.records = Records()
        self.environments: dict[str, Environment] = {}
        self.instances: dict[str, Instance] = {}
        self.findings: tuple[Finding, ...] = ()
        self.revision = 0
        self.commits: dict[str, Commit] = {}  # of environments that other commits touched last
        self.read = False
        self.decider = Decider()
        self.patience = Patience()
        self.airflow: dict[str, Airflow] = {}
        self.complete: dict[str, set[str]] = {}  # build id → runtimes that it is verified for
        self.faults: set[str] = set()
        self.requests: list[Request] = []
        self.under_way: dict[tuple[str, str], Effect] = {}
        self.ended: list[tuple[Effect, object]] = []
        self.asked = 0
        self.switched = 0
        self.failed_live: set[tuple[str, str | None]] = set()
        self.silent: dict[tuple[str, str, float], int] = {}  # consecutive checks of one process
        self.events: list[Event] = []

    # ------------------------------------------------------------------------ the environments repo

    def join(self, one: Instance) -> None:
        """Define an instance, with its own empty Airflow."""
        self.instances[one.name] = one
        self.airflow[one.name] = Airflow()

    def commit(self) -> None:
        """Make the current definitions a new revision, which the daemon has read."""
        self.revision += 1
        self.read = True

    def definitions(self) -> Definitions | None:
        """Return the definitions that the daemon read last, or None if none since its start."""
        if not self.read:
            return None
        broken = {f.place.file for f in self.findings}
        return Definitions(
            Commit(f"r{self.revision}", f"author of r{self.revision}"),
            {n: e for n, e in self.environments.items() if e.place.file not in broken},
            {n: i for n, i in self.instances.items() if i.place.file not in broken},
            self.findings,
            commits=self.commits,
        )

    def ask(self, verb: Verb, target: str, **options: Any) -> None:
        """Queue an operator's request."""
        self.asked += 1
        self.requests.append(
            Request(self.asked, self.now, "someone", verb, target, Options(**options))
        )

    # ----------------------------------------------------------------------------------- the daemon

    def world(self) -> World:
        """Return the input of a decision."""
        ready = {
            (b.build_id, b.runtime_key)
            for b in self.records.builds.values()
            if b.phase is BuildPhase.READY and b.build_id
        }
        return World(
            self.now,
            self.records,
            self.definitions(),
            tuple(self.requests),
            {n: self.airflow[n].mark for n in self.records.instances if n in self.airflow},
            missing_builds=frozenset(
                b for b, runtime in ready if runtime not in self.complete.get(b, set())
            ),
            policy=POLICY,
        )

    def cycle(self, *, die_before_record: bool = False, die_after_record: bool = False) -> Plan:
        """Take reports, decide, record, start effects; or die at some point."""
        self.take_reports()
        world = self.world()
        plan = self.decider.decide(world)
        assert told(plan) == told(decide(world)), "a decision with a focus is that without one"
        if die_before_record:
            self.crash()
            return plan
        self._store(plan.change)
        self.decider.done()
        self.requests = [r for r in self.requests if r.id not in plan.change.finished_requests]
        if die_after_record:
            self.crash()
            return plan
        for effect in plan.effects:
            self.under_way.setdefault((effect.kind, effect.key), effect)
        return plan

    def crash(self) -> None:
        """Kill the daemon: what was in progress is lost, and so is what was read."""
        self.under_way.clear()
        self.ended.clear()
        self.read = False
        self.decider = Decider()
        self.patience = Patience()
        self.silent.clear()

    def take_reports(self) -> None:
        """Apply finished effects to the records."""
        if not self.ended:
            return
        draft = Draft(replace(self.world(), requests=()))
        for effect, result in self.ended:
            self._record(draft, effect, result)
        self.ended.clear()
        self._store(draft.plan().change)

    def _store(self, change: Change) -> None:
        for record in change.instances:
            check_record(record)
            check_update(self.records.instances.get(record.name), record)
        for name in change.drop_instances:
            assert self.records.instances[name].activation is None, "no activation disappears"
        self.records = stored(self.records, change)
        for event in change.events:
            name = event.object.removeprefix("instance/")
            if event.kind == "ActivationActive":
                assert self.records.instances[name].fingerprint == self.airflow[name].mark, (
                    "a build is active on the base that the instance has, never on an outgoing one"
                )
        self.events += change.events

    def _record(self, draft: Draft, effect: Effect, result: object) -> None:
        if isinstance(result, BuildOutcome):
            record_build(draft, effect.key, result)
        elif isinstance(result, tuple):
            step, outcome = result
            record_step(draft, effect.key, step, outcome)
        else:
            runtime = result if isinstance(result, Runtime) else None
            problem = result if isinstance(result, Problem) else None
            mark = runtime.key.rpartition("-")[2] if runtime else self.airflow[effect.key].mark
            pointed = self.airflow[effect.key].loaded
            record_inspection(draft, effect.key, mark, runtime, problem, pointed)

    # ---------------------------------------------------------------------------------- the effects

    def act(self, key: tuple[str, str], *, halfway: bool = False) -> None:
        """Carry out an effect in progress; `halfway`: it dies in the middle, unreported."""
        effect = self.under_way.pop(key)
        result = self._perform(effect, halfway)
        if not halfway:
            self.ended.append((effect, result))

    def _perform(self, effect: Effect, halfway: bool) -> object:
        if effect.kind == "inspect":
            if "api" in self.faults:
                return Problem(Reason.BASE_UNREADABLE, "the interpreter does not answer")
            if self.airflow[effect.key].rolling:
                return Problem(Reason.MIXED_IMAGES, "its pods run several images")
            return self._runtime(effect.key)
        if effect.kind == "perform":
            record = self.records.instances.get(effect.key)
            if record is None or record.activation is None:
                return None if halfway else (Step.OBSERVE, StepResult(Verdict.NOT_YET))
            looked = self._look(record.name, record.activation)
            return looked.step, self._step(record, looked, halfway)
        return self._build(effect, halfway)

    def _look(self, name: str, activation: Activation) -> Activation:
        """Return the activation for a check that lasts until the next one of this daemon."""
        with suppress(KeyError):  # its first check
            self.patience.looked(name, self.now)
        return self.patience.look(name, activation, self.now, self.now)

    def _runtime(self, name: str) -> Runtime:
        key = self.airflow[name].runtime_key
        return Runtime(key, "/python", "3.11.7", "cp311", "linux", "3.3.2", (), ())

    def _build(self, effect: Effect, halfway: bool) -> BuildOutcome:
        build = self.records.builds.get(effect.key)
        if build is None or halfway:
            return BuildOutcome(effect.kind, cancelled=True)
        if "build" in self.faults:
            return BuildOutcome(
                effect.kind, Problem(Reason.INDEX_UNREACHABLE, "no answer"), retry_after=1.0
            )
        bad = {"resolve": "r", "verify": "v"}.get(effect.kind)
        if bad is not None and build.recipe_digest.startswith(bad):
            return BuildOutcome(
                effect.kind, Problem(Reason.VERIFICATION_FAILED, "it does not work")
            )
        build_id = f"{build.recipe_digest}@{build.runtime_key}"
        if effect.kind == "construct":
            self.complete.setdefault(build_id, set())
            return BuildOutcome(effect.kind, build_id=build_id)
        if effect.kind == "verify":
            if build_id not in self.complete:
                return BuildOutcome(
                    effect.kind, Problem(Reason.BUILD_MISSING, "gone"), retry_after=0.0
                )
            self.complete[build_id].add(build.runtime_key)
            return self._judged(effect, build)
        return BuildOutcome(effect.kind)

    def _judged(self, effect: Effect, build: BuildRecord) -> BuildOutcome:
        limits = self.records.environments[build.environment].definition.recipe.checks.budget
        measured = cost(build.recipe_digest)
        over = exceeded(limits, measured)
        problem = refusal(over, measured, {}) if over else None
        return BuildOutcome(
            effect.kind, problem, cost=measured, limits=demanded(limits), dags=self._dags(build)
        )

    def _dags(self, build: BuildRecord) -> tuple[DagCheck, ...]:
        """Return which DAGs were parsed: none with a build whose digest ends with an odd number."""
        environment = self.records.environments[build.environment]
        seen = int(build.recipe_digest[-1:] not in "13579")
        instances = users(build, environment, self.records.instances)
        return tuple(DagCheck(one.name, seen=seen) for one in instances)

    def _step(self, record: InstanceRecord, activation: Activation, halfway: bool) -> StepResult:  # noqa: C901 - one arm a step
        real = self.airflow[record.name]
        step = activation.step
        talks = {
            Step.OBSERVE,
            Step.PAUSE,
            Step.DRAIN,
            Step.PROBE,
            Step.PROBE_BACK,
            Step.RELEASE,
            Step.RELEASE_BACK,
            Step.RELEASE_ABORT,
            Step.WATCH,
            Step.PAUSE_BACK,
            Step.DRAIN_BACK,
        }
        if self.faults & {"api", "credentials"} and step in talks:
            return self._silent(record, activation)
        match step:
            case Step.OBSERVE:
                pools = tuple(sorted(real.pools.items()))
                return StepResult(
                    Verdict.OK, pools=pools, baseline=(), expected_dags=(), layout=LAYOUT
                )
            case Step.PAUSE | Step.PAUSE_BACK:
                assert dict(activation.pools), "pools are recorded before the first change"
                for number, name in enumerate(real.pools):
                    if not (halfway and number):
                        real.pools[name] = 0
            case Step.DRAIN | Step.DRAIN_BACK:
                if real.tasks:
                    late = self.now - activation.step_since > record.definition.drain_timeout
                    problem = Problem(Reason.DRAIN_TIMEOUT, "tasks still run")
                    return StepResult(Verdict.FAILED if late else Verdict.NOT_YET, problem, 2.0)
            case Step.SWITCH | Step.SWITCH_BACK | Step.SWITCH_SERVERS_BACK | Step.WITHDRAW:
                return self._switch(record, activation, real)
            case Step.RESTART_SERVERS_BACK:
                pass  # they run no tasks, and a build is loaded by the others
            case Step.RESTART | Step.RESTART_BACK:
                assert not real.tasks, "no task runs while components restart"
                if "restart" in self.faults:
                    self._fails_live(record, activation)
                    return StepResult(Verdict.FAILED, Problem(Reason.RESTART_FAILED, "exit code 1"))
                if "forbidden" in self.faults:
                    return StepResult(
                        Verdict.FAILED, Problem(Reason.NOT_ALLOWED, "no such command")
                    )
                if "image" in self.faults and activation.step is Step.RESTART:
                    problem = Problem(Reason.IMAGE_PULL, "the registry does not answer")
                    return StepResult(Verdict.FAILED, problem)
                real.start(activation.kept)
            case Step.PROBE | Step.PROBE_BACK:
                if "shut" in self.faults and step is Step.PROBE:
                    return StepResult(
                        Verdict.FAILED, Problem(Reason.AIRFLOW_DENIED, "it answered 401")
                    )
                if not real.healthy:
                    self._fails_live(record, activation)
                    return StepResult(Verdict.FAILED, Problem(Reason.COMPONENT_DOWN, "it is down"))
            case Step.WATCH:
                if (real.running or "").startswith("w"):
                    self._fails_live(record, activation)
                    return StepResult(Verdict.FAILED, Problem(Reason.CRASH_LOOP, "it crashes"))
            case Step.RELEASE | Step.RELEASE_BACK | Step.RELEASE_ABORT:
                for number, (name, slots) in enumerate(activation.pools):
                    if not (halfway and number):
                        real.pools[name] = slots
        return StepResult(Verdict.OK)

    def _silent(self, record: InstanceRecord, activation: Activation) -> StepResult:
        """Return the result of a step while Airflow is silent, or rejects our credentials."""
        silent = "api" in self.faults
        reason = Reason.AIRFLOW_UNREACHABLE if silent else Reason.AIRFLOW_DENIED
        problem = Problem(reason, "no answer")
        probing = activation.step in (Step.PROBE, Step.PROBE_BACK, Step.WATCH)
        recorded = self.records.instances[record.name].activation
        look = (record.name, str(activation.step), recorded.step_since if recorded else 0.0)
        self.silent[look] = self.silent.get(look, 0) + 1
        limit = record.definition.probe_timeout if probing else STEP_LIMIT
        if self.now - activation.step_since <= limit:
            return StepResult(Verdict.NOT_YET, problem, after=5.0)
        if probing:
            problem = gate_timeout(record.definition, problem)
            if reason == "AirflowUnreachable" and self.silent[look] >= LOOKS:
                self._fails_live(record, activation)
        return StepResult(Verdict.FAILED, problem)

    def _fails_live(self, record: InstanceRecord, activation: Activation) -> None:
        if activation.step in (Step.RESTART, Step.PROBE, Step.WATCH):
            self.failed_live.add((record.name, activation.target.build))

    def _switch(self, record: InstanceRecord, activation: Activation, real: Airflow) -> StepResult:
        forward = activation.step is Step.SWITCH
        wanted = activation.target.build if forward else activation.origin.build
        assert record.runtime is not None
        if "share" in self.faults:
            late = self.now - activation.step_since > STEP_LIMIT
            verdict = Verdict.FAILED if late else Verdict.NOT_YET
            return StepResult(verdict, Problem(Reason.SHARE_UNREACHABLE, "no answer"), after=5.0)
        inherits = record.inherits and (not forward or wanted == record.current.build)
        made_for = record.current.runtime if inherits else record.runtime.key
        if wanted is not None and made_for not in self.complete.get(wanted, set()):
            return StepResult(Verdict.FAILED, Problem(Reason.BUILD_MISSING, "not on the share"))
        if forward:
            marked = {q.build_id for q in record.quarantines}
            assert wanted not in marked, "a quarantined build is never switched to"
        real.pointers.pop(record.runtime.key, None)
        if not inherits:
            real.pointers[record.runtime.key] = wanted
        self.switched += 1
        return StepResult(Verdict.OK, contents=self._contents(activation) if forward else None)

    def _contents(self, activation: Activation) -> Switch | None:
        origin, target = activation.origin.build, activation.target.build
        if origin not in self.complete or target not in self.complete:
            return None
        return Switch(content(origin), content(target))

    # -------------------------------------------------------------------------------------- running

    def settle(self, limit: int = 400) -> None:
        """Remove all faults, and continue until nothing is left to do."""
        self.faults.clear()
        self.read = True
        for real in self.airflow.values():
            if real.rolling:
                real.upgrade()
        for _ in range(limit):
            for real in self.airflow.values():
                real.tasks.clear()
            plan = self.cycle()
            if not self.under_way and not self.ended and plan.wake_at is None:
                return
            for key in list(self.under_way):
                self.act(key)
            if plan.wake_at is not None and not self.ended:
                self.now = max(self.now, plan.wake_at)
            self.now += 1.0
        raise AssertionError(f"not settled after {limit} cycles: {self.records.instances}")
