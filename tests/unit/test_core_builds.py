"""Builds in the core: which are made, how many at once, and which exceed an import budget."""

from __future__ import annotations

from reconciler.core.builds import RUNNING
from reconciler.core.definitions import Wave
from reconciler.core.event_codec import data_of
from reconciler.core.phases import BuildPhase, Health, Sync
from reconciler.core.reasons import Reason
from reconciler.core.states import State
from reconciler.core.statuses import status
from tests.fakes.definitions import environment, instance, limited
from tests.fakes.simulated_world import House
from tests.unit.waves import ask_for, house_of, turn


def test_a_newer_revision_cancels_the_build_of_the_older() -> None:
    """Only the newest revision's build continues."""
    house = house_of("dev")
    turn(house, 2)
    ask_for(house, "g2")
    plan = house.cycle()
    old = [b for b in house.records.builds.values() if b.recipe_digest == "g1"]
    assert [b.phase for b in old] == [BuildPhase.CANCELLED]
    assert plan.cancels == (old[0].key,)


def test_a_build_that_is_tried_again_says_why() -> None:
    """A temporary failure is reported while it lasts, and no longer once the build is made."""
    house = house_of("dev")
    house.faults.add("build")
    for _ in range(3):
        turn(house)
        house.now += 3600.0
    (environment_status,) = status(None, house.records, house.now).environments
    (reconciling,) = (c for c in environment_status.conditions if c.type == "Reconciling")
    (ready,) = (c for c in environment_status.conditions if c.type == "Ready")
    assert "failed 3 times and is tried again: no answer" in reconciling.message
    assert ready.message == reconciling.message
    house.faults.clear()
    turn(house)
    (environment_status,) = status(None, house.records, house.now).environments
    assert not any("no answer" in c.message for c in environment_status.conditions)


def test_builds_are_bounded_and_fair_between_teams() -> None:
    """A team with many builds does not delay another team's first one."""
    house = House()
    for number in range(4):
        name = f"red{number}"
        house.join(instance(name))
        waves = (Wave((name,)),)
        house.environments[name] = environment(name, f"g{name}", waves)
    house.join(instance("blue", "blue"))
    house.environments["zz"] = environment("zz", "gblue", (Wave(("blue",)),), "blue")
    house.commit()
    house.cycle()
    for key in list(house.under_way):
        house.act(key)
    house.cycle()
    running = [b for b in house.records.builds.values() if b.phase is BuildPhase.RESOLVING]
    assert sorted(b.team for b in running) == ["blue", "red"]


def test_what_many_environments_ask_for_alike_is_built_once_and_found_by_the_others() -> None:
    """One of them is built; meanwhile the others use no slot, then all continue at once."""
    house = House()
    for number in range(6):
        name = f"red{number}"
        house.join(instance(name))
        house.environments[name] = environment(name, "g1", (Wave((name,)),))
    house.join(instance("other"))
    house.environments["zz"] = environment("zz", "g2", (Wave(("other",)),))
    house.commit()
    started = []
    for _ in range(12):
        house.cycle()
        running = [b for b in house.records.builds.values() if b.phase in RUNNING]
        started.append(sorted(b.recipe_digest for b in running))
        if not any(b.phase is BuildPhase.READY for b in house.records.builds.values()):
            assert started[-1].count("g1") <= 1
        for key in list(house.under_way):
            house.act(key)
        house.now += 0.1
    assert ["g1", "g2"] in started, "another build has the second place"
    assert ["g1", "g1"] in started, "what is made is not waited for"
    house.settle()
    assert {a.running for a in house.airflow.values()} == {"g1@cp311-linux-1", "g2@cp311-linux-1"}


# ------------------------------------------------------------------------------ the import budget


def limit_to(house: House, files: int) -> None:
    house.environments["one"] = limited(house.environments["one"], files)
    house.commit()


def builds_of(house: House) -> dict[str, BuildPhase]:
    return {b.recipe_digest: b.phase for b in house.records.builds.values()}


def test_a_build_over_the_limit_touches_nothing_live() -> None:
    """It fails at the limit's line; the instance keeps its build; a raised limit resolves it."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g5")
    limit_to(house, 300)
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    (failed,) = [e for e in house.events if e.kind == "BuildFailed"]
    assert failed.reason == Reason.IMPORT_BUDGET_EXCEEDED
    assert data_of(failed)["place"] == "teams/red/one.yaml:9"
    assert "allows 300 files" in failed.message
    limit_to(house, 500)
    house.settle()
    assert house.airflow["dev"].running == "g5@cp311-linux-1"


def test_a_lowered_limit_refuses_an_active_build_and_leaves_it_running() -> None:
    """The commit of the limit failed; nothing is rolled back, and no other build is made."""
    house = house_of("dev")
    ask_for(house, "g5")
    house.settle()
    switched = house.switched
    limit_to(house, 300)
    house.settle()
    assert builds_of(house) == {"g5": BuildPhase.FAILED}
    (failed,) = [e for e in house.events if e.kind == "BuildFailed"]
    assert failed.revision == f"r{house.revision}"
    (environment_status,) = status(None, house.records, house.now).environments
    assert (environment_status.state, environment_status.sync) == (
        State.BUILD_FAILED,
        Sync.OUT_OF_SYNC,
    )
    assert environment_status.health is Health.HEALTHY, "what runs is as healthy as before"
    assert house.airflow["dev"].running == "g5@cp311-linux-1"
    assert house.switched == switched
    limit_to(house, 0)
    house.settle()
    assert builds_of(house) == {"g5": BuildPhase.READY}
    assert status(None, house.records, house.now).environments[0].health is Health.HEALTHY
    assert house.switched == switched


def test_a_limit_that_is_kept_starts_nothing() -> None:
    """The recorded measurement suffices: no build is queued, and no event is recorded."""
    house = house_of("dev")
    ask_for(house, "g5")
    house.settle()
    ready = [e for e in house.events if e.kind == "BuildReady"]
    for files in (600, 500, 0):
        limit_to(house, files)
        house.settle()
    assert [e for e in house.events if e.kind == "BuildReady"] == ready
    assert not house.under_way


def test_one_recipe_is_taken_by_one_environment_and_refused_by_another() -> None:
    """Each is judged by its own definition."""
    house = house_of("dev")
    house.join(instance("other"))
    house.environments["two"] = limited(environment("two", "g5", (Wave(("other",)),)), 300)
    ask_for(house, "g5")
    house.settle()
    assert house.airflow["dev"].running == "g5@cp311-linux-1"
    assert house.airflow["other"].running is None
    phases = {b.environment: b.phase for b in house.records.builds.values()}
    assert phases == {"one": BuildPhase.READY, "two": BuildPhase.FAILED}


def test_a_regression_is_marked_against_the_build_before() -> None:
    """It is one of the same environment and runtime; a new runtime's first has none."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g4")
    house.settle()
    first, second = [e for e in house.events if e.kind == "BuildReady"]
    assert (first.reason_name, data_of(first)["import_before"]) == ("BuildReady", None)
    assert second.reason == Reason.IMPORT_REGRESSION
    assert "imports 100 files → 400 files (+300 %)" in second.message
    assert data_of(second)["import_growth"] == {"files": 4.0, "opens": 4.0}
    before = data_of(second)["import_before"]
    assert isinstance(before, dict)
    assert (before["build"], before["files"]) == ("g1@cp311-linux-1", 100)
    (active,) = [e for e in house.events if e.kind == "ActivationActive" and data_of(e)["from"]]
    assert "100 files → 400 files (+300 %)" in data_of(active)["imports_grown"]  # type: ignore[operator]
    house.airflow["dev"].upgrade()
    house.settle()
    third = [e for e in house.events if e.kind == "BuildReady"][-1]
    assert (third.reason_name, data_of(third)["import_before"]) == ("BuildReady", None)


def test_less_is_no_regression_and_failed_builds_are_no_measure() -> None:
    """A refused build never counts as the previous one."""
    house = house_of("dev")
    ask_for(house, "g4")
    house.settle()
    ask_for(house, "g9")
    limit_to(house, 500)
    house.settle()
    ask_for(house, "g3")
    house.settle()
    last = [e for e in house.events if e.kind == "BuildReady"][-1]
    assert last.reason_name == "BuildReady"
    before = data_of(last)["import_before"]
    assert isinstance(before, dict)
    assert before["files"] == 400
