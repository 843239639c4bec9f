"""Activations on an Airflow whose reports carry times of clocks that jump or disagree.

The effects, the gate and the steps by REST are the real ones; Airflow's processes are simulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.airflow.declared import Declared
from reconciler.airflow.gate import Gate
from reconciler.airflow.rest import BrokenFile, Dag, Section
from reconciler.airflow.steps import RestSteps
from reconciler.core.definitions import Instance
from reconciler.core.machine import FINAL
from reconciler.core.model import (
    Activation,
    Deployment,
    InstanceRecord,
    Records,
    Reports,
    StepResult,
)
from reconciler.core.phases import Step, Trigger, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Layout
from reconciler.core.runtime import Runtime
from reconciler.core.world import Draft, World
from reconciler.daemon.effects import InstanceEffects
from tests.fakes.definitions import instance

START = 1_800_000_000.0
HEARTBEAT = 5.0  # seconds
WATCH = 60.0
COMPONENTS = frozenset({"scheduler", "dag-processor"})
JUMPS = st.sampled_from([-7200.0, -90.0, -5.0, -1.0, 1.0, 45.0, 1000.0, 7200.0])
LOOKS = 400  # of one activation, at most


@dataclass
class Machine:
    """A machine on which Airflow and the daemon run, or the daemon alone if Airflow is `ahead`.

    `elapsed` counts the seconds since its boot, `offset` is by how much its clock was set since
    then. The process that a restart replaces goes on for `lag` seconds and then starts anew; it
    parses its DAG at its start and each `parse` seconds.
    """

    parse: float = 30.0
    lag: float = 0.0
    ahead: float = 0.0
    breaks: bool = False  # the new process cannot parse the DAG
    hangs: bool = False  # the new process reports nothing
    elapsed: float = 1000.0
    offset: float = 0.0
    changes_over: float = 0.0  # when the new process replaces the old one; 0.0: no restart
    written: dict[str, float] = field(default_factory=dict)  # heartbeat and parse time
    broken_at: float = 0.0
    _due: dict[str, float] = field(default_factory=dict)
    _is_new: bool = False
    reported: set[str] = field(default_factory=set)  # what the new process has reported

    def now(self) -> float:
        return START + self.elapsed + self.offset

    def clock(self) -> float:
        return self.now() - self.elapsed

    def pass_time(self, seconds: float) -> None:
        """Let processes write their reports."""
        for _ in range(int(seconds * 2)):
            self.elapsed += 0.5
            if self.changes_over and self.elapsed >= self.changes_over:
                self._is_new, self.changes_over = True, 0.0
                self._due.clear()
            for what, interval in (("heartbeat", HEARTBEAT), ("parsed", self.parse)):
                if self.elapsed >= self._due.get(what, 0.0):
                    self._due[what] = self.elapsed + interval
                    self._report(what)

    def _report(self, what: str) -> None:
        if self._is_new and self.hangs:
            return
        if self._is_new:
            self.reported.add(what)
        if what == "parsed" and self._is_new and self.breaks:
            self.broken_at = self.now() + self.ahead
            return
        self.written[what] = self.now() + self.ahead

    def restart(self, *, good: bool) -> None:
        """Replace the process; that of the earlier build works."""
        self.changes_over = self.elapsed + self.lag
        self._is_new = False
        if good:
            self.breaks = self.hangs = False
            self.broken_at = 0.0
        self.reported.clear()

    # ------------------------------------------------------------------- the REST API

    def pools(self) -> dict[str, int]:
        return {}

    def busy(self) -> int:
        return 0

    def health(self) -> dict[str, Section]:
        beat = Section("healthy", self.written["heartbeat"])
        return {
            "metadatabase": Section("healthy", 0.0),
            "scheduler": beat,
            "dag_processor": beat,
        }

    def dags(self) -> list[Dag]:
        return [Dag("hello", "hello.py", self.written["parsed"])]

    def providers(self) -> dict[str, str]:
        return {}

    def plugins(self) -> set[str]:
        return set()

    def loose_plugins(self) -> set[str]:
        return set()

    def import_errors(self) -> list[BrokenFile]:
        return [BrokenFile("hello.py", "ImportError", self.broken_at)] if self.broken_at else []


class Rest(RestSteps):
    """Steps by REST on a simulated Airflow."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(Path(), lambda: None, WATCH, machine.clock)
        self._machine = machine

    def api(self, instance: Instance) -> Any:
        del instance
        return nullcontext(self._machine)


class SimulatedDriver:
    """Driver of the simulated Airflow, in one daemon process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._rest = Rest(machine)

    def reports(self, instance: Instance, activation: Activation, now: float) -> Reports:
        return self._rest.reports(instance, activation, now)

    def perform(
        self, step: Step, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        match step:
            case Step.OBSERVE:
                return self._rest.observe(instance, Layout(tuple(COMPONENTS)))
            case Step.RESTART | Step.RESTART_BACK:
                self._machine.restart(good=step is Step.RESTART_BACK)
                self._machine.pass_time(2.0)
                return StepResult(Verdict.OK)
            case Step.PROBE | Step.PROBE_BACK | Step.WATCH:
                started: Mapping[str, float] = {}
                gate = Gate(
                    activation,
                    self._rest.history(instance, activation),
                    components=COMPONENTS,
                    started=started,
                    declared=Declared(),
                )
                return self._rest.probe(instance, activation, now, gate.look)
            case _:
                return StepResult(Verdict.OK)


class Shelf:
    """Share whose pointer always names what it should."""

    def points(self, *_: object, **__: object) -> bool:
        return True

    def pointer(self, _: str) -> None:
        return None


@dataclass
class Play:
    """An activation that is played to its end; `jumps` and `kills` are by the number of a look."""

    machine: Machine
    jumps: Mapping[int, float] = field(default_factory=dict)
    kills: frozenset[int] = frozenset()
    kinds: list[str] = field(default_factory=list)  # of events
    opened_on: set[str] | None = None  # what was reported when the gate opened

    def run(self) -> InstanceRecord:
        """Return the instance after the activation has ended."""
        machine = self.machine
        machine.pass_time(40.0)
        record = self._record()
        effects = self._daemon()
        for look in range(LOOKS):
            machine.offset += self.jumps.get(look, 0.0)
            if look in self.kills:
                effects = self._daemon()
            activation = record.activation
            assert activation is not None
            draft = Draft(World(machine.now(), replace(Records(), instances={"x": record})))
            effects.perform(record, machine.now()).apply(draft)
            record = draft.instances["x"]
            self.kinds += [event.kind for event in draft.events]
            if record.activation is None:
                assert record.last is not None
                assert record.last.step in FINAL
                return record
            if activation.step is Step.PROBE and record.activation.step is Step.RELEASE:
                self.opened_on = {*machine.reported}
            machine.pass_time(1.0)
        raise AssertionError(f"not ended: {record.activation}")

    def _record(self) -> InstanceRecord:
        now = self.machine.now()
        loading = tuple(sorted(COMPONENTS))
        before = Deployment("a", runtime="cp311-linux-1", load_into=loading)
        activation = Activation(
            "id",
            before,
            replace(before, build="b"),
            Trigger.COMMIT,
            "r1",
            Step.OBSERVE,
            now,
            now,
            phases=(("Draining", now),),
        )
        runtime = Runtime("cp311-linux-1", "/python", "3.11.7", "cp311", "linux", "3.3.2", (), ())
        definition = replace(instance("x"), probe_timeout=60.0)
        return InstanceRecord(
            "x", "red", definition, runtime=runtime, current=before, activation=activation
        )

    def _daemon(self) -> InstanceEffects:
        driver = SimulatedDriver(self.machine)
        return InstanceEffects(
            cast("Any", Shelf()),
            cast("Any", None),
            lambda _: cast("Any", driver),
            lambda: self.machine.elapsed,
        )


PARSES = st.sampled_from([30.0, 3600.0])  # as min_file_process_interval may be set
LAGS = st.sampled_from([0.0, 1.0, 3.0])
MOMENTS = st.integers(0, 80)
any_history = given(
    parse=PARSES,
    lag=LAGS,
    jumps=st.dictionaries(MOMENTS, JUMPS, max_size=4),
    kills=st.frozensets(MOMENTS, max_size=3),
)


@settings(max_examples=30, deadline=None)
@any_history
def test_a_good_version_becomes_active_whatever_the_clock_does(
    parse: float, lag: float, jumps: dict[int, float], kills: frozenset[int]
) -> None:
    """It is never in quarantine, and the instance is never degraded or rolled back."""
    play = Play(Machine(parse, lag), jumps, kills)
    record = play.run()
    assert (record.current.build, record.quarantines) == ("b", ()), play.kinds
    assert not {"Degraded", "RolledBack", "ActivationAborted"} & {*play.kinds}


@settings(max_examples=30, deadline=None)
@any_history
def test_a_version_that_breaks_dags_is_never_active_whatever_the_clock_does(
    parse: float, lag: float, jumps: dict[int, float], kills: frozenset[int]
) -> None:
    """At the latest the watch sees the import error that the new process reports."""
    record = Play(Machine(parse, lag, breaks=True), jumps, kills).run()
    assert record.current.build == "a"
    assert [mark.reason for mark in record.quarantines] == [Reason.NEW_IMPORT_ERRORS]


@pytest.mark.parametrize("ahead", [-300.0, -2.0, 0.0, 2.0, 300.0])
@pytest.mark.parametrize("lag", [0.0, 3.0])
def test_an_airflow_whose_clock_differs_is_not_to_blame(ahead: float, lag: float) -> None:
    """A report that changes is new, whatever time it carries."""
    record = Play(Machine(lag=lag, ahead=ahead)).run()
    assert (record.current.build, record.quarantines) == ("b", ())


@pytest.mark.parametrize("ahead", [-300.0, 0.0])
def test_the_gate_opens_only_on_reports_of_the_new_process(ahead: float) -> None:
    """While nobody sets the clock, reports of a process that is being replaced do not count."""
    play = Play(Machine(lag=3.0, ahead=ahead))
    play.run()
    assert play.opened_on == {"heartbeat", "parsed"}


@pytest.mark.parametrize("jump", [0.0, -90.0, 7200.0])
def test_a_version_with_which_nothing_reports_is_to_blame(jump: float) -> None:
    """The clock is set right before the restart: what was there before stays old."""
    play = Play(Machine(hangs=True), {3: jump})
    record = play.run()
    assert [mark.reason for mark in record.quarantines] == [Reason.GATE_TIMEOUT]
    assert record.current.build == "a"
