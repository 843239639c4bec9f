"""Decisions of the core: waves, windows, suspension, quarantine, rollbacks, patched bases."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core import decide as decide_module
from reconciler.core.decide import decide
from reconciler.core.definitions import Wave, Window
from reconciler.core.event_codec import data_of
from reconciler.core.events import EventKind
from reconciler.core.model import Problem, Records, Verb
from reconciler.core.phases import BuildPhase, Health, Step, Sync
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from reconciler.core.waits import Wait, WaitOn, WindowState
from reconciler.core.world import Draft, Policy, World
from reconciler.daemon.windows import window_state
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House, stored
from tests.unit.waves import ask_for, house_of, turn


def waiting(house: House, name: str) -> Wait:
    """Return what an instance's activation waits for."""
    wait = house.records.instances[name].wait
    assert wait is not None
    return wait


def test_waves_go_one_after_the_other_and_soak() -> None:
    """The second wave starts only when the first has been active for its soak."""
    house = house_of("dev", "prod", soak=600.0)
    turn(house)
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert house.airflow["prod"].running is None
    assert waiting(house, "prod").message.startswith("soak: wave 1 (dev)")
    house.now += 601
    turn(house)
    assert house.airflow["prod"].running == "g1@cp311-linux-1"


def test_a_wave_that_failed_holds_the_next() -> None:
    """A build that fails on dev never reaches prod."""
    house = house_of("dev", "prod")
    house.settle()
    ask_for(house, "l2")
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert house.airflow["prod"].running == "g1@cp311-linux-1"
    assert "dev has no healthy build of this revision" in waiting(house, "prod").message


def test_a_window_holds_an_activation_until_it_opens() -> None:
    """Nothing is drained before the window, and the plan contains the time of the next decision."""
    house = house_of("dev")
    windowed = replace(house.instances["dev"], window=Window("0 2 * * *", 3600.0))
    house.instances["dev"] = windowed
    turn(house, 8)
    shut = replace(house.world(), windows={"dev": WindowState(False, house.now + 50)})
    plan = decide(shut)
    assert plan.wake_at == house.now + 50
    assert not [e for e in plan.effects if e.kind == "perform"]
    (record,) = [i for i in plan.change.instances if i.name == "dev"] or [
        house.records.instances["dev"]
    ]
    assert record.wait is not None
    assert record.wait.on is WaitOn.WINDOW
    opened = replace(house.world(), windows={"dev": WindowState(True, house.now + 50)})
    assert [e.kind for e in decide(opened).effects if e.kind == "perform"]


def test_a_record_that_waits_is_written_once() -> None:
    """Soak, window and retry: while time passes and nothing happens, no row and no text changes."""
    soaks = house_of("dev", "prod", soak=36000.0)
    turn(soaks)
    retries = house_of("dev")
    retries.settle()
    ask_for(retries, "g2")
    retries.faults.add("image")
    turn(retries)
    for house, name, subject in ((soaks, "prod", WaitOn.SOAK), (retries, "dev", WaitOn.RETRY)):
        wait = waiting(house, name)
        assert wait.on is subject
        for _ in range(5):
            house.now += 0.1
            assert house.cycle().change.instances == ()
        assert house.records.instances[name].wait == wait


def test_a_shut_window_is_told_in_its_own_time_and_once() -> None:
    """The message has the wall clock of its zone; the record is not written a second time."""
    house = house_of("dev")
    window = Window("0 2 * * *", 3600.0, "Europe/Berlin")
    house.instances["dev"] = replace(house.instances["dev"], window=window)
    turn(house, 8)
    for seconds in range(5):
        world = replace(house.world(), now=house.now + seconds)
        plan = decide(replace(world, windows={"dev": window_state(window, world.now)}))
        house.records = stored(house.records, plan.change)
        said = waiting(house, "dev").message
        assert said == "window: opens at 1970-01-01 02:00 Europe/Berlin"
        assert bool(plan.change.instances) == (seconds == 0)


def test_a_suspended_environment_is_left_alone_and_its_builds_too() -> None:
    """Suspend stops builds and activations; resume continues them."""
    house = house_of("dev")
    house.settle()
    house.ask(Verb.SUSPEND, "environment/one")
    ask_for(house, "g2")
    turn(house)
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert status(None, house.records, house.now).environments[0].health is Health.SUSPENDED
    house.ask(Verb.RESUME, "environment/one")
    house.settle()
    assert house.airflow["dev"].running == "g2@cp311-linux-1"


def test_an_environment_whose_instance_is_suspended_is_suspended() -> None:
    """Its health is not unknown, because a person suspended it."""
    house = house_of("dev", "prod")
    house.settle()
    house.ask(Verb.SUSPEND, "instance/dev")
    turn(house)
    (environment_status,) = status(None, house.records, house.now).environments
    assert environment_status.health is Health.SUSPENDED
    house.ask(Verb.RESUME, "instance/dev")
    turn(house)
    assert status(None, house.records, house.now).environments[0].health is Health.HEALTHY


def test_a_suspended_instance_says_why_its_base_cannot_be_inspected() -> None:
    """Whoever resumes it would only be told then."""
    house = House()
    house.join(instance("dev", suspend=True))
    house.environments["one"] = environment("one", "g1", (Wave(("dev",)),))
    house.faults.add("api")
    house.commit()
    for _ in range(5):
        turn(house)
    (shown,) = status(None, house.records, house.now).instances
    assert shown.health is Health.SUSPENDED
    assert shown.message == (
        "suspended before it had what is wanted. Its base cannot be inspected (BaseUnreadable): "
        "the interpreter does not answer"
    )


def test_suspending_in_the_drain_gives_the_pools_back() -> None:
    """Before the switch, a suspension ends the activation with nothing changed."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].tasks.append("g1@cp311-linux-1")
    ask_for(house, "g2")
    turn(house, 12)
    activation = house.records.instances["dev"].activation
    assert activation is not None
    assert activation.step is Step.DRAIN
    house.ask(Verb.SUSPEND, "instance/dev")
    turn(house)
    assert house.records.instances["dev"].activation is None
    assert house.airflow["dev"].pools["default_pool"] == 128


def test_a_build_is_not_blamed_for_an_image_that_cannot_be_pulled() -> None:
    """The instance is rolled back, and the same build is retried by itself after a while."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.faults.add("image")
    turn(house)
    record = house.records.instances["dev"]
    assert record.activation is None
    assert record.quarantines == ()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert waiting(house, "dev").message.startswith("retry at ")
    assert record.problem is not None
    assert record.problem.reason == Reason.IMAGE_PULL
    house.faults.clear()
    house.settle()
    assert house.airflow["dev"].running == "g2@cp311-linux-1"


def test_what_a_step_waits_for_is_told() -> None:
    """The Reconciling condition has it until the next step begins."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].tasks.append("g1@cp311-linux-1")
    ask_for(house, "g2")
    turn(house, 12)
    record = house.records.instances["dev"]
    assert record.activation is not None
    assert record.activation.held == Problem(Reason.DRAIN_TIMEOUT, "tasks still run")
    (instance_status,) = status(None, house.records, house.now).instances
    (reconciling,) = [c for c in instance_status.conditions if c.type == "Reconciling"]
    assert reconciling.message == "tasks still run"


def test_a_quarantine_lasts_until_the_definition_changes_or_someone_retries() -> None:
    """A quarantined build is not retried by itself; an operator's retry tries it once more."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "l2")
    house.settle()
    switched = house.switched
    house.now += 100_000
    house.settle()
    assert house.switched == switched
    house.ask(Verb.RETRY, "instance/dev")
    house.settle()
    assert house.switched > switched
    ask_for(house, "g3")
    house.settle()
    assert house.records.instances["dev"].quarantines == ()


def test_an_operators_rollback_goes_to_the_previous_build_and_stays() -> None:
    """`rollback` returns to what was active before, and the newest is not retried."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.settle()
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"


def test_a_second_rollback_is_refused_and_leaves_the_packages() -> None:
    """Pages and CLI name the build that it returns to; a quarantined build blocks the way back."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.settle()
    for said, to in (("", "g1@cp311-linux-1"), ("g2@cp311-linux-1, is in quarantine here", "")):
        (shown,) = status(None, house.records, house.now).instances
        assert shown.back.build == to
        assert said in shown.back.refused
        before = len(house.events)
        house.ask(Verb.ROLLBACK, "instance/dev")
        house.settle()
        answer = next(e for e in house.events[before:] if e.kind.startswith("Rollback"))
        assert answer.kind == ("RollbackRequested" if to else "RollbackRefused")
        assert data_of(answer).get("to", "") == to
        assert said in answer.message
        assert house.airflow["dev"].running == "g1@cp311-linux-1"


def test_a_rollback_never_ends_on_the_bare_base() -> None:
    """The instance stays where it was, on its first build or if the previous build fails."""
    house = house_of("dev")
    house.settle()
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    assert house.events[-1].kind == "RollbackRefused"
    assert "there is no build before this one" in house.events[-1].message
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    ask_for(house, "g2")
    house.settle()
    house.ask(Verb.ROLLBACK, "instance/dev")
    turn(house, 1)
    house.complete["g1@cp311-linux-1"].clear()
    house.settle()
    assert house.airflow["dev"].running == "g2@cp311-linux-1"
    assert house.records.instances["dev"].current.build == "g2@cp311-linux-1"


def test_a_rollback_does_not_go_forward() -> None:
    """While a newer build waits for its turn, a rollback would move to it, so it is refused."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.settle()
    ask_for(house, "g3")
    house.instances["dev"] = replace(house.instances["dev"], window=Window("0 2 * * *", 3600.0))
    house.commit()
    turn(house)
    house.ask(Verb.ROLLBACK, "instance/dev")
    turn(house)
    assert [e.kind for e in house.events if e.kind.startswith("Rollback")] == ["RollbackRefused"]
    assert house.records.instances["dev"].quarantines == ()


def test_every_answer_to_a_request_has_its_number() -> None:
    """For a request that was carried out or refused, nobody has to parse the text."""
    house = house_of("a")
    house.settle()
    before = len(house.events)
    house.ask(Verb.SUSPEND, "instance/a")
    house.ask(Verb.RETRY, "instance/gone")
    house.ask(Verb.ROLLBACK, "instance/a")
    house.cycle()
    answers = [(data_of(e)["request"], e.kind) for e in house.events[before:]]
    assert answers == [(1, "Suspended"), (2, "RequestRefused"), (3, "RollbackRefused")]


def test_a_new_base_is_resolved_anew_and_activated() -> None:
    """After an upgrade of Airflow the instance gets a build for its new runtime."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].upgrade()
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-2"
    assert status(None, house.records, house.now).instances[0].sync is Sync.SYNCED


def test_a_build_for_another_base_is_none_to_go_back_to() -> None:
    """The build of the previous base is not for this one: a rollback to it is refused."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].patch()
    house.settle()
    record = house.records.instances["dev"]
    assert record.current.runtime == record.runtime.key  # type: ignore[union-attr]
    assert record.previous.build is None
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    assert [e.kind for e in house.events if e.kind.startswith("Rollback")] == ["RollbackRefused"]
    assert house.records.instances["dev"].current.build == record.current.build


def test_a_patched_base_goes_on_with_its_build_until_it_has_one_of_its_own() -> None:
    """A failed activation there ends on the previous build, not on the bare base."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].patch()
    house.faults.add("build")
    turn(house)
    record = house.records.instances["dev"]
    assert record.current.build == house.airflow["dev"].running == "g1@cp311-linux-1"
    assert status(None, house.records, house.now).instances[0].sync is Sync.OUT_OF_SYNC
    ask_for(house, "l2")
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert [data_of(e)["to"] for e in house.events if e.kind == "RolledBack"] == [
        "g1@cp311-linux-1"
    ]
    ask_for(house, "g3")
    house.settle()
    assert house.airflow["dev"].running == "g3@cp311-linux-2"


def test_a_patched_base_whose_environment_is_deleted_is_left_bare() -> None:
    """Although nothing was built for it yet: it still loads the build of the previous base."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].patch()
    house.faults.add("build")
    turn(house)
    house.environments.clear()
    house.commit()
    house.settle()
    assert house.airflow["dev"].running is None


def test_degraded_is_said_once_and_healed_by_a_new_revision() -> None:
    """If rolling back fails too it is Degraded, retried, and left by a newer good build."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.faults.add("restart")
    for _ in range(60):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += 30.0
    activation = house.records.instances["dev"].activation
    assert activation is not None
    shown = status(None, house.records, house.now).instances[0]
    assert shown.health is Health.DEGRADED
    assert [e.kind for e in house.events].count(EventKind.DEGRADED) == 1
    ask_for(house, "g3")
    house.settle()
    assert house.airflow["dev"].running == "g3@cp311-linux-1"


def test_a_time_beyond_the_longest_wait_is_due_now() -> None:
    """Nobody records such a time, unless the clock was wrong."""
    draft = Draft(World(1000.0, Records()))
    assert not draft.waits_until(1000.0 + 7200.0)
    assert not draft.waits_until(1000.0)
    assert draft.wake_at is None
    assert draft.waits_until(1060.0)
    assert draft.wake_at == 1060.0
    patient = Draft(World(1000.0, Records(), policy=Policy(retry_most=10_000.0)))
    assert patient.waits_until(1000.0 + 7200.0)
    assert draft.waits_until(1060.0, 60.0)
    assert not draft.waits_until(1061.0, 60.0)


def test_a_step_goes_on_at_once_if_the_clock_was_set_back_by_more_than_it_waits() -> None:
    """It does not wait until the clock has caught up."""
    house = house_of("dev")
    house.airflow["dev"].tasks.append(None)
    turn(house, 8)
    activation = house.records.instances["dev"].activation
    assert activation is not None
    assert activation.step is Step.DRAIN
    assert activation.not_before > house.now
    house.now -= 90.0
    plan = house.cycle()
    assert [e.kind for e in plan.effects] == ["perform"]


@pytest.mark.parametrize(("ahead", "is_due"), [(600.0, False), (7200.0, True)])
def test_what_waits_for_a_clock_that_was_set_back_goes_on(ahead: float, is_due: bool) -> None:
    """Builds and instances alike: their retries were recorded while the clock was ahead."""
    house = house_of("dev")
    house.faults.add("build")
    turn(house, 4)
    (build,) = house.records.builds.values()
    assert build.phase is BuildPhase.QUEUED, "a retry is recorded"
    builds = {build.key: replace(build, not_before=house.now + ahead)}
    plan = decide(replace(house.world(), records=replace(house.records, builds=builds)))
    assert bool([e for e in plan.effects if e.key == build.key]) is is_due
    house.settle()
    instances = house.records.instances
    assert isinstance(instances, dict)
    # after so many failures it waits for a minute, which is the policy's longest retry here
    instances["dev"] = replace(instances["dev"], not_before=house.now + ahead / 12, aborts=9)
    ask_for(house, "g2")
    turn(house)
    assert (house.airflow["dev"].running == "g2@cp311-linux-1") is is_due


def test_a_soak_begins_again_if_the_clock_was_set_back() -> None:
    """It neither ends at once nor waits until the clock has caught up."""
    house = house_of("dev", "prod", soak=60.0)
    ask_for(house, "g1")
    turn(house, 30)
    house.now -= 7200.0
    turn(house, 1)
    dev = house.records.instances["dev"]
    assert dev.active_since == pytest.approx(house.now, abs=5.0)
    assert house.airflow["prod"].running is None
    house.settle()
    assert house.airflow["prod"].running == "g1@cp311-linux-1"


@pytest.mark.parametrize(("since", "elapsed"), [(990.0, 10.0), (1030.0, -30.0), (8200.0, math.inf)])
def test_a_time_that_lies_ahead_counts_as_long_ago(since: float, elapsed: float) -> None:
    """But for the little by which the clocks of replicas differ."""
    assert Draft(World(1000.0, Records())).elapsed(since) == elapsed


COMPARED = {
    (
        "world.py",
        "self.now < not_before <= self.now + min(longest, self.policy.longest_wait)",
    ): "too long a wait",
    ("world.py", "since <= self.now + SKEW"): "a time that lies ahead",
    ("activations.py", "record.active_since > draft.now"): "a time that lies ahead",
    ("activations.py", "soaked_at > draft.now"): "active_since was corrected before",
    ("accept.py", "draft.elapsed(activation.step_since) > GONE"): "elapsed counts it as long ago",
    ("incremental.py", "last.now <= world.now"): "the clock was set back",
    ("incremental.py", "world.now < last.now"): "the clock was set back",
    (
        "incremental.py",
        "world.now < wake_at",
    ): "of the last decision",
    ("incremental.py", "record.not_before > last"): "such a record is only looked at again",
    ("suspensions.py", "suspension.until <= draft.now"): "an operator gave it, not a clock",
}


def test_recorded_times_are_compared_with_the_clock_in_few_places() -> None:
    """A comparison that waits for a time recorded by a wrong clock may wait for hours."""
    core = Path(decide_module.__file__).parent
    compared = {
        (path.name, ast.unparse(node))
        for path in core.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        and re.search(r"\bnow\b|not_before|_since\b", ast.unparse(node))
        and " is " not in ast.unparse(node)
    }
    assert compared == COMPARED.keys(), "use Draft.waits_until or Draft.elapsed"
