"""Promises, with thousands of random histories of commits, faults, crashes and clocks."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.core.budget import exceeded
from reconciler.core.definitions import Api, Finding, Place, Wave
from reconciler.core.machine import FINAL, TABLE, Decision
from reconciler.core.model import Verb
from reconciler.core.phases import PHASE_OF, BuildPhase, Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.statuses import Statuses, status
from reconciler.core.waits import WaitOn
from reconciler.core.world import build_key
from tests.fakes.airflow import POOLS, SELECTIVE
from tests.fakes.definitions import environment, instance, limited
from tests.fakes.simulated_world import House, cost
from tests.harness.machine import check_processes

ENVIRONMENTS = {"one": ("a", "b"), "two": ("c",)}
KINDS = st.sampled_from("gggrvlw")
NAMES = st.sampled_from("abc")


class Promises(RuleBasedStateMachine):
    """Histories of two environments on three instances; the invariants are the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.house = House()
        self.serial = 0
        self.statuses = Statuses()
        for name in "abc":
            self.house.join(instance(name))
        for name in ENVIRONMENTS:
            self._define(name, "g")
        self.house.commit()

    def _define(self, name: str, kind: str) -> None:
        self.serial += 1
        waves = tuple(Wave((i,), soak=30.0) for i in ENVIRONMENTS[name])
        self.house.environments[name] = environment(name, f"{kind}{self.serial}", waves)

    # ------------------------------------------------------------------------------- histories

    @rule(name=st.sampled_from(sorted(ENVIRONMENTS)), kind=KINDS)
    def commit(self, name: str, kind: str) -> None:
        self._define(name, kind)
        self.house.commit()

    @rule(name=st.sampled_from(sorted(ENVIRONMENTS)), files=st.sampled_from([0, 0, 300, 600]))
    def limit_imports(self, name: str, files: int) -> None:
        if name in self.house.environments:
            self.house.environments[name] = limited(self.house.environments[name], files)
            self.house.commit()

    @rule(name=st.sampled_from(sorted(ENVIRONMENTS)))
    def delete(self, name: str) -> None:
        self.house.environments.pop(name, None)
        self.house.commit()

    @rule(name=st.sampled_from(sorted(ENVIRONMENTS)), broken=st.booleans())
    def break_file(self, name: str, broken: bool) -> None:
        location = Place(f"teams/red/{name}.yaml", 3)
        finding = Finding(location, f"Environment/{name}", Reason.WRONG_TYPE, "a mistake")
        self.house.findings = (finding,) if broken else ()
        self.house.commit()

    @rule()
    def read_again(self) -> None:
        self.house.read = True

    @rule(died=st.sampled_from(["", "", "", "before", "after"]))
    def cycle(self, died: str) -> None:
        self.house.cycle(die_before_record=died == "before", die_after_record=died == "after")

    @precondition(lambda self: self.house.under_way)
    @rule(data=st.data(), halfway=st.sampled_from([False, False, False, True]))
    def act(self, data: st.DataObject, halfway: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.house.under_way)))
        self.house.act(key, halfway=halfway)
        if halfway:
            self.house.crash()

    @rule(turns=st.integers(1, 12), seconds=st.sampled_from([1.0, 1.0, 61.0]))
    def go_on(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.house.cycle()
            for key in list(self.house.under_way):
                self.house.act(key)
            self.house.take_reports()
            self.house.now += seconds

    @rule()
    def crash(self) -> None:
        self.house.crash()

    @rule(seconds=st.sampled_from([1.0, 31.0, 700.0, 5000.0, -100.0, -4000.0]))
    def time_passes_or_jumps(self, seconds: float) -> None:
        self.house.now = max(1.0, self.house.now + seconds)

    @rule(fault=st.sampled_from(["build", "api", "credentials", "restart", "image", "share"]))
    def toggle_fault(self, fault: str) -> None:
        self.house.faults ^= {fault}

    @rule(name=NAMES)
    def a_task_starts(self, name: str) -> None:
        real = self.house.airflow[name]
        if any(real.pools.values()):
            real.tasks.append(real.running)

    @rule(name=NAMES)
    def a_task_ends(self, name: str) -> None:
        del self.house.airflow[name].tasks[:1]

    @rule(name=NAMES, component=st.sampled_from(SELECTIVE))
    def a_component_starts_by_itself(self, name: str, component: str) -> None:
        real = self.house.airflow[name]
        real.selective[component] = real.pointer

    @rule(name=NAMES)
    def airflow_is_upgraded(self, name: str) -> None:
        self.house.airflow[name].upgrade()

    @rule(name=NAMES, begins=st.booleans())
    def an_upgrade_is_rolled_out_or_undone(self, name: str, begins: bool) -> None:
        self.house.airflow[name].rolling = begins

    @rule(name=NAMES, port=st.integers(1, 3))
    def an_instance_is_aimed_at_another_address(self, name: str, port: int) -> None:
        old = self.house.instances[name]
        self.house.instances[name] = replace(old, api=Api(f"http://127.0.0.1:{port}"))
        self.house.commit()

    @rule(name=NAMES)
    def airflow_is_patched(self, name: str) -> None:
        self.house.airflow[name].patch()

    @precondition(lambda self: self.house.complete)
    @rule(data=st.data())
    def the_share_loses_a_build_that_nothing_runs(self, data: st.DataObject) -> None:
        real = self.house.airflow.values()
        used = {b for r in real for b in (*r.pointers.values(), r.running, *r.tasks)}
        used |= {b for r in real for b in r.selective.values()}
        used |= {i.current.build for i in self.house.records.instances.values()}
        for record in self.house.records.instances.values():
            if record.activation is not None:
                used.add(record.activation.origin.build)
        free = sorted(b for b in self.house.complete if b not in used)
        if free:
            del self.house.complete[data.draw(st.sampled_from(free))]

    @rule(
        verb=st.sampled_from([v for v in Verb if v is not Verb.CONFIRM_PRUNE]),
        what=st.sampled_from(["instance/a", "instance/c", "environment/one", "environment/no"]),
    )
    def someone_asks(self, verb: Verb, what: str) -> None:
        self.house.ask(verb, what)

    # -------------------------------------------------------------------------------- promises

    @invariant()
    def a_pointer_names_a_complete_and_verified_build(self) -> None:
        for real in self.house.airflow.values():
            for runtime, build in real.pointers.items():
                assert build is None or runtime in self.house.complete.get(build, set()), real

    @invariant()
    def what_failed_to_build_is_never_live(self) -> None:
        for real in self.house.airflow.values():
            assert (real.pointer or "g")[0] in "glw"

    @invariant()
    def a_task_runs_only_beside_the_processes_that_started_it(self) -> None:
        for real in self.house.airflow.values():
            assert all(build == real.running for build in real.tasks)

    @invariant()
    def at_rest_pools_are_as_they_were(self) -> None:
        self.house.take_reports()
        for name, record in self.house.records.instances.items():
            if record.activation is None:
                assert self.house.airflow[name].pools == POOLS

    @invariant()
    def at_rest_records_and_pointer_agree(self) -> None:
        for name, record in self.house.records.instances.items():
            if record.activation is None and record.current.runtime is not None:
                pointers = self.house.airflow[name].pointers
                assert record.current.build == pointers.get(record.current.runtime)

    @invariant()
    def at_rest_each_component_runs_all_that_it_would_load_of_the_current_build(self) -> None:
        for name, record in self.house.records.instances.items():
            if record.activation is None:
                check_processes(record, self.house.airflow[name])

    @invariant()
    def a_status_computed_from_the_last_one_is_that_from_the_start(self) -> None:
        house = self.house
        last = self.statuses.of(house.records, house.now)
        assert last == status(None, house.records, house.now)

    def teardown(self) -> None:
        """Check that once faults stop, all instances reach what the newest good revision wants."""
        house = self.house
        for name in ENVIRONMENTS:
            house.ask(Verb.RESUME, f"environment/{name}")
        for name in "abc":
            house.ask(Verb.RESUME, f"instance/{name}")
        house.ask(Verb.CONFIRM_PRUNE, "")
        house.findings = ()
        house.commit()
        house.settle()
        for name, instances in ENVIRONMENTS.items():
            wanted = house.environments.get(name)
            for each in instances:
                self._settled(each, wanted.recipe.digest if wanted else None)
        self.at_rest_pools_are_as_they_were()

    def _settled(self, name: str, digest: str | None) -> None:
        record = self.house.records.instances[name]
        real = self.house.airflow[name]
        assert record.activation is None, record
        assert record.definition == self.house.instances[name]
        assert real.running == real.pointer == record.current.build
        if digest is None:
            assert record.current.build is None, "a deleted environment returns to the bare base"
            return
        assert record.runtime is not None
        if digest[0] in "glw" and self._refused(name, digest, record.runtime.key):
            return
        wanted = f"{digest}@{record.runtime.key}"
        marked = {q.build_id for q in record.quarantines}
        for mark in record.quarantines:
            failed = (name, mark.build_id) in self.house.failed_live
            assert failed or mark.reason == Reason.ROLLED_BACK_BY_OPERATOR, mark
        waits = record.wait is not None and record.wait.on is WaitOn.WAVE
        if digest[0] == "g" and wanted not in marked and not waits:
            assert record.current.build == wanted, record
        if digest[0] in "lw":
            assert record.current.build != wanted, "a build that fails live does not stay"
            assert wanted in marked or waits, record

    def _refused(self, instance: str, digest: str, runtime_key: str) -> bool:
        """Return True if a sound build exceeds its environment's limit and is therefore Failed."""
        (name,) = (name for name, names in ENVIRONMENTS.items() if instance in names)
        build = self.house.records.builds[build_key(name, digest, runtime_key)]
        limits = self.house.environments[name].recipe.checks.budget
        over = bool(exceeded(limits, cost(digest)))
        assert build.phase is (BuildPhase.FAILED if over else BuildPhase.READY), build
        assert not over or (
            build.problem is not None and build.problem.reason is Reason.IMPORT_BUDGET_EXCEEDED
        )
        return over


def _histories(number: int) -> settings:
    return settings(
        max_examples=number,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class TestPromises(Promises.TestCase):  # type: ignore[misc, valid-type]
    """Some histories, for a quick result."""

    settings = _histories(200)


@pytest.mark.slow
class TestPromisesAtLength(Promises.TestCase):  # type: ignore[misc, valid-type]
    """Enough histories to find rare cases."""

    settings = _histories(int(os.environ.get("GROUNDCREW_HISTORIES", "2000")))


def test_every_step_leads_to_an_end() -> None:
    """From any step, OK verdicts end the activation: no step is a trap."""
    for step in Step:
        seen, at = set(), step
        while at not in FINAL:
            assert at not in seen, f"{step} goes round in circles"
            seen.add(at)
            row = TABLE[at]
            at = row[Verdict.OK] if Verdict.OK in row else row[Decision.GO_BACK]
    assert set(PHASE_OF) == set(Step)
