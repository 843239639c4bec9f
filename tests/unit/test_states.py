"""The table of states: every combination of facts, and what used to contradict itself."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import pytest

from metrics.gauges import problems
from reconciler.api import contract
from reconciler.api.documents import environment_document, instance_document, status_document
from reconciler.api.pages.phrases import sentence
from reconciler.cli.status import _problems
from reconciler.core.model import Verb
from reconciler.core.phases import ActivationPhase, Health, Sync
from reconciler.core.reasons import Reason
from reconciler.core.states import (
    TABLE,
    URGENCY,
    Course,
    EnvironmentFacts,
    Held,
    Inspection,
    InstanceFacts,
    Next,
    Rollback,
    State,
    Stray,
    environment_health,
    environment_state,
    environment_sync,
    instance_state,
    instance_sync,
)
from reconciler.core.status import Condition, EnvironmentStatus, InstanceStatus, Status
from reconciler.core.statuses import status
from tests.fakes.simulated_world import House
from tests.unit.waves import ask_for, house_of, turn

BOTH = (False, True)
OF_INSTANCES = frozenset(TABLE) - {State.INVALID, State.NO_INSTANCE}
MAYBE_SYNCED = {Sync.SYNCED, Sync.OUT_OF_SYNC}

# ------------------------------------------------------------------------- every combination


def every_instance() -> list[InstanceFacts]:
    facts = product(Inspection, Course, BOTH, BOTH, BOTH, Rollback, BOTH, BOTH, Next, Stray)
    return [InstanceFacts(*one) for one in facts]


def test_every_combination_of_facts_gives_an_instance_one_consistent_state() -> None:
    """Sync, health and conditions never contradict each other, and every state can come about."""
    reached = set()
    for facts in every_instance():
        state, sync = instance_state(facts), instance_sync(facts)
        row = TABLE[state]
        reached.add(state)
        is_well = row.health in (Health.HEALTHY, Health.SUSPENDED)
        assert (row.condition is Held.READY) == (sync is Sync.SYNCED and is_well), facts
        assert (row.health is Health.DEGRADED) == (facts.course is Course.DEGRADED), facts
        assert (sync is Sync.UNKNOWN) == (facts.inspection is not Inspection.DONE), facts
        if facts.course is not Course.NONE:
            assert sync is not Sync.SYNCED, facts
            assert row.condition is Held.RECONCILING, facts
        if row.condition is Held.STALLED:
            assert row.is_wrong, facts
            assert not facts.waits, "what is tried again is not stalled"
        if row.condition is Held.READY:
            assert not row.is_wrong, facts
    assert reached == OF_INSTANCES


ROWS: list[tuple[dict[str, object], State, Sync, Health, Held]] = [
    ({}, State.ACTIVE, Sync.SYNCED, Health.HEALTHY, Held.READY),
    ({"suspended": True}, State.SUSPENDED, Sync.SYNCED, Health.SUSPENDED, Held.READY),
    (
        {"inspection": Inspection.PENDING, "at_target": False},
        State.NOT_INSPECTED,
        Sync.UNKNOWN,
        Health.UNKNOWN,
        Held.RECONCILING,
    ),
    (
        {"inspection": Inspection.FAILED, "failed": True, "at_target": False},
        State.NOT_READABLE,
        Sync.UNKNOWN,
        Health.MISSING,
        Held.RECONCILING,
    ),
    (
        {"inspection": Inspection.OUTDATED, "failed": True},
        State.BASE_CHANGING,
        Sync.UNKNOWN,
        Health.PROGRESSING,
        Held.RECONCILING,
    ),
    (
        {"course": Course.FORWARD, "at_target": False},
        State.ACTIVATING,
        Sync.OUT_OF_SYNC,
        Health.PROGRESSING,
        Held.RECONCILING,
    ),
    (
        {"course": Course.GIVEN_UP, "at_target": False},
        State.WITHDRAWING,
        Sync.OUT_OF_SYNC,
        Health.PROGRESSING,
        Held.RECONCILING,
    ),
    (
        {"course": Course.BACK, "at_target": False},
        State.ROLLING_BACK,
        Sync.OUT_OF_SYNC,
        Health.PROGRESSING,
        Held.RECONCILING,
    ),
    (
        {"course": Course.DEGRADED, "at_target": False},
        State.DEGRADED,
        Sync.OUT_OF_SYNC,
        Health.DEGRADED,
        Held.RECONCILING,
    ),
    (
        {"suspended": True, "at_target": False},
        State.SUSPENDED_BEHIND,
        Sync.OUT_OF_SYNC,
        Health.SUSPENDED,
        Held.NONE,
    ),
    (
        {"at_target": False, "failed_back": True, "failed": True},
        State.ROLLED_BACK,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.STALLED,
    ),
    (
        {"at_target": False, "failed_back": True, "failed": True, "waits": True},
        State.RETRYING,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.RECONCILING,
    ),
    (
        {"at_target": False, "failed": True, "waits": True},
        State.RETRYING,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.RECONCILING,
    ),
    (
        {"at_target": False, "rollback": Rollback.DONE},
        State.HELD_BACK,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.NONE,
    ),
    (
        {"at_target": False, "rollback": Rollback.ASKED, "waits": True},
        State.WAITING,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.RECONCILING,
    ),
    (
        {"at_target": False, "waits": True},
        State.WAITING,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.RECONCILING,
    ),
    (
        {"at_target": False, "next": Next.OPEN},
        State.BUILDING,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.RECONCILING,
    ),
    (
        {"at_target": False, "next": Next.RETRIED},
        State.BUILD_RETRYING,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.RECONCILING,
    ),
    (
        {"at_target": False, "next": Next.FAILED},
        State.BUILD_FAILED,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.STALLED,
    ),
    (
        {"at_target": False, "next": Next.NONE},
        State.NO_BUILD,
        Sync.OUT_OF_SYNC,
        Health.HEALTHY,
        Held.RECONCILING,
    ),
]


@pytest.mark.parametrize(("given", "state", "sync", "health", "condition"), ROWS)
def test_each_situation_of_an_instance_has_its_row(
    given: dict[str, object], state: State, sync: Sync, health: Health, condition: Held
) -> None:
    """The situations by themselves, as people meet them."""
    facts = InstanceFacts(**given)  # type: ignore[arg-type]
    row = TABLE[state]
    assert (instance_state(facts), instance_sync(facts)) == (state, sync)
    assert (row.health, row.condition) == (health, condition)


def test_every_combination_of_facts_gives_an_environment_one_consistent_state() -> None:
    """Its health is that of what runs, whatever its definition and its builds are like."""
    of_instances = {(instance_state(facts), instance_sync(facts)) for facts in every_instance()} - {
        (state, sync) for state in State for sync in MAYBE_SYNCED if state not in OF_INSTANCES
    }
    groups = [
        (),
        *((one,) for one in of_instances),
        *combinations_with_replacement(of_instances, 2),
    ]
    builds = [(), *((one,) for one in Next), (Next.READY, Next.FAILED), (Next.OPEN, Next.READY)]
    for invalid, suspended, of_builds, group in product(BOTH, BOTH, builds, groups):
        facts = EnvironmentFacts(invalid, suspended, of_builds, group)
        state, sync, health = (
            environment_state(facts),
            environment_sync(facts),
            environment_health(facts),
        )
        degraded = any(one is State.DEGRADED for one, _ in group)
        assert (health is Health.DEGRADED) == degraded == (state is State.DEGRADED), facts
        assert (
            not group
            or health is not Health.MISSING
            or any(TABLE[one].health is Health.MISSING for one, _ in group)
        ), facts
        if TABLE[state].condition is Held.STALLED:
            assert (
                invalid
                or Next.FAILED in of_builds
                or {State.ROLLED_BACK, State.BUILD_FAILED, State.DRIFTED}
                & {one for one, _ in group}
            ), facts
        if TABLE[state].condition is Held.READY and not suspended:
            assert {one for one, _ in group} <= {State.ACTIVE, State.SUSPENDED}, facts
            assert sync is Sync.SYNCED, facts
            assert health in (Health.HEALTHY, Health.SUSPENDED), facts


def test_the_order_of_urgency_names_each_state_of_an_instance_once() -> None:
    """Or an environment would not know what to say of it."""
    assert sorted(URGENCY) == sorted(OF_INSTANCES)


# ------------------------------------------------------------------- what contradicted itself


def look(house: House) -> Status:
    return status(None, house.records, house.now)


def only(house: House) -> tuple[EnvironmentStatus, InstanceStatus]:
    shown = look(house)
    return shown.environments[0], shown.instances[0]


def conditions(one: EnvironmentStatus | InstanceStatus) -> dict[str, Condition]:
    return {condition.type: condition for condition in one.conditions}


def true_ones(one: EnvironmentStatus | InstanceStatus) -> list[str]:
    return [condition.type for condition in one.conditions if condition.status]


def until(house: House, phase: ActivationPhase) -> InstanceStatus:
    """Go on to the moment at which the instance is in this phase."""
    for _ in range(200):
        turn(house, 1)
        (one,) = look(house).instances
        if one.phase == phase:
            return one
    raise AssertionError(f"{phase} was not reached")


def on_second_build() -> House:
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.settle()
    return house


def told_by_cli(shown: Status) -> list[str]:
    return _problems(contract.Status.model_validate(status_document(shown)))


def check_agreement(house: House) -> None:
    """CLI, API and metrics tell of each object what `status` says of it."""
    shown = look(house)
    lines = "\n".join(told_by_cli(shown))
    labels = problems(shown, house.records, house.now)
    objects: list[InstanceStatus | EnvironmentStatus] = [*shown.instances, *shown.environments]
    for one in objects:
        document = (
            instance_document(one) if isinstance(one, InstanceStatus) else environment_document(one)
        )
        kept = ("reason", "message", "health", "sync")
        assert [document[key] for key in kept] == [
            one.reason,
            one.message,
            str(one.health),
            str(one.sync),
        ]
        assert len(true_ones(one)) <= 1, one
        ready = conditions(one)["Ready"]
        assert (ready.message == "") == ready.status, one
        if ready.status:
            assert one.sync is Sync.SYNCED, one
        else:
            assert (ready.reason, ready.message) == (one.reason, one.message)
        if one.is_wrong:
            assert f"[{one.reason}]" in lines, one
            assert one.reason in {reason for *_, reason in labels}, one


@pytest.mark.parametrize(
    "faults", [{"build"}, {"api"}, {"restart"}, {"image"}, {"share"}, {"shut"}]
)
@pytest.mark.parametrize("digest", ["g3", "l2", "r2", "v2"])
def test_all_ways_to_look_agree_at_every_moment(faults: set[str], digest: str) -> None:
    """Whatever fails, with a rollback by hand in the end."""
    house = on_second_build()
    ask_for(house, digest)
    house.faults |= faults
    for number in range(120):
        turn(house, 1)
        check_agreement(house)
        house.now += 20.0
        if number == 60:
            house.faults.clear()
        if number == 90:
            house.ask(Verb.ROLLBACK, "instance/dev")


def test_ready_is_never_yes_while_airflow_cannot_be_reached() -> None:
    """It was, with that as its message."""
    house = on_second_build()
    ask_for(house, "g3")
    house.faults.add("api")
    turn(house, 30)
    _, one = only(house)
    ready = conditions(one)["Ready"]
    assert (ready.status, ready.reason) == (False, Reason.AIRFLOW_UNREACHABLE)
    assert true_ones(one) == ["Reconciling"]
    assert "instance/dev: [AirflowUnreachable] no answer" in told_by_cli(look(house))


def test_a_condition_tells_when_it_last_changed() -> None:
    """Not when somebody looked."""
    house = on_second_build()
    _, one = only(house)
    told = conditions(one)
    ready_at = told["Ready"].at
    assert 1000.0 < ready_at == told["Reconciling"].at <= house.now
    assert told["Stalled"].at == 1000.0, "it never was"
    house.now += 5000.0
    house.cycle()
    environment, one = only(house)
    assert conditions(one) == told
    assert conditions(environment)["Ready"].at == ready_at
    changed_at = house.now
    ask_for(house, "r3")
    turn(house, 1)
    _, one = only(house)
    assert {name: c.at for name, c in conditions(one).items()} == {
        "Ready": changed_at,
        "Reconciling": changed_at,
        "Stalled": 1000.0,
    }
    house.now += 100.0
    turn(house, 30)
    environment, one = only(house)
    assert true_ones(environment) == true_ones(one) == ["Stalled"]
    assert conditions(one)["Ready"].at == changed_at
    assert conditions(one)["Stalled"].at >= changed_at + 100.0


def test_a_failed_build_degrades_nothing() -> None:
    """It leaves alone what runs; the environment is stalled, and says why."""
    house = on_second_build()
    ask_for(house, "r3")
    house.settle()
    environment, one = only(house)
    assert (environment.health, environment.sync) == (Health.HEALTHY, Sync.OUT_OF_SYNC)
    assert (environment.reason, environment.message) == (
        Reason.VERIFICATION_FAILED,
        "it does not work",
    )
    assert true_ones(environment) == ["Stalled"]
    assert (one.health, one.reason) == (Health.HEALTHY, Reason.VERIFICATION_FAILED)


def test_a_rollback_by_hand_degrades_nothing_and_says_who_did_it() -> None:
    """The environment was Degraded, with an empty message."""
    house = on_second_build()
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    environment, one = only(house)
    for shown in (environment, one):
        assert (shown.health, shown.sync) == (Health.HEALTHY, Sync.OUT_OF_SYNC)
        assert shown.reason == Reason.ROLLED_BACK_BY_OPERATOR
        assert "rolled back by someone" in shown.message
        assert true_ones(shown) == []
    assert any("rolled back by someone" in line for line in told_by_cli(look(house)))


def test_pages_speak_of_a_rollback_by_hand_as_one() -> None:
    """They told of a new build that was on its way, and failed."""
    house = on_second_build()
    house.ask(Verb.ROLLBACK, "instance/dev")
    said = {}
    for phase in (
        ActivationPhase.DRAINING,
        ActivationPhase.SWITCHING,
        ActivationPhase.RESTARTING,
    ):
        said[phase] = sentence(until(house, phase))
        house.faults.add("restart")
    begin = "It is being rolled back for someone"
    assert said == {
        ActivationPhase.DRAINING: f"{begin}: running tasks are left to end first.",
        ActivationPhase.SWITCHING: f"{begin}.",
        ActivationPhase.RESTARTING: f"{begin}: its components are restarted.",
    }
    one = until(house, ActivationPhase.ROLLING_BACK)
    assert sentence(one) == (
        "The rollback that someone asked for failed, and it is returning to the build that was to "
        "be replaced."
    )


def test_pages_speak_of_the_way_to_the_bare_base_as_one() -> None:
    """A deleted environment brings no new build."""
    house = on_second_build()
    del house.environments["one"]
    house.commit()
    house.ask(Verb.CONFIRM_PRUNE, "")
    assert sentence(until(house, ActivationPhase.RESTARTING)) == (
        "It is being returned to the bare base: its components are restarted."
    )


def test_the_reason_is_told_while_it_rolls_back() -> None:
    """By the command line too."""
    house = on_second_build()
    ask_for(house, "l3")
    one = until(house, ActivationPhase.ROLLING_BACK)
    assert (one.health, one.reason) == (Health.PROGRESSING, Reason.COMPONENT_DOWN)
    assert "instance/dev: [ComponentDown] it is down" in told_by_cli(look(house))


@pytest.mark.parametrize("fault", ["image", "drain", "inspect"])
def test_what_is_tried_again_is_not_stalled(fault: str) -> None:
    """A person need not do anything: it reconciles, and says why it has to."""
    house = on_second_build()
    if fault == "drain":
        house.airflow["dev"].tasks.append("g2@cp311-linux-1")
        ask_for(house, "g3")
    elif fault == "inspect":
        house.airflow["dev"].rolling = True
    else:
        house.faults.add(fault)
        ask_for(house, "g3")
    for _ in range(60):
        turn(house, 1)
        environment, one = only(house)
        assert "Stalled" not in [*true_ones(environment), *true_ones(one)]
        if one.state in (State.RETRYING, State.BASE_CHANGING):
            break
        house.now += 30.0
    assert one.state in (State.RETRYING, State.BASE_CHANGING)
    assert true_ones(one) == true_ones(environment) == ["Reconciling"]
    assert one.reason not in (str(one.state), "Stalled")
    assert environment.reason == one.reason
