"""What the core decides: waves, windows, suspension, quarantine, the prune guard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.builds import RUNNING
from reconciler.core.decide import decide
from reconciler.core.definitions import Finding, Place, Wave, Window
from reconciler.core.model import Problem, Verb
from reconciler.core.phases import BuildPhase, Health, Step, Sync
from reconciler.core.status import status
from reconciler.core.world import WindowState
from reconciler.daemon.windows import window_state
from tests.fakes.airflow import Airflow
from tests.fakes.definitions import environment, instance, limited
from tests.fakes.house import House, stored


def house_of(*names: str, soak: float = 0.0) -> House:
    """Instances in waves of their own, under one environment on `g1`; nothing has happened yet."""
    house = House()
    for name in names:
        house.instances[name] = instance(name)
        house.airflow[name] = Airflow()
    waves = tuple(Wave((name,), soak) for name in names)
    house.environments["one"] = environment("one", "g1", waves)
    house.commit()
    return house


def ask_for(house: House, digest: str) -> None:
    old = house.environments["one"]
    house.environments["one"] = environment("one", digest, old.rollout)
    house.commit()


def turn(house: House, times: int = 30) -> None:
    """Go on without letting time pass to the next appointment."""
    for _ in range(times):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += 0.1


def test_waves_go_one_after_the_other_and_soak() -> None:
    """The second wave starts only when the first has been active for its soak."""
    house = house_of("dev", "prod", soak=600.0)
    turn(house)
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert house.airflow["prod"].running is None
    assert house.records.instances["prod"].wait.startswith("soak: wave 1 (dev)")
    house.now += 601
    turn(house)
    assert house.airflow["prod"].running == "g1@cp311-linux-1"


def test_a_wave_that_failed_holds_the_next() -> None:
    """What fails on dev never reaches prod."""
    house = house_of("dev", "prod")
    house.settle()
    ask_for(house, "l2")
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert house.airflow["prod"].running == "g1@cp311-linux-1"
    assert "dev has no healthy build of this revision" in house.records.instances["prod"].wait


def test_a_window_holds_an_activation_until_it_opens() -> None:
    """Nothing is drained before the window, and the plan says when to look again."""
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
    assert record.wait.startswith("window")
    opened = replace(house.world(), windows={"dev": WindowState(True, house.now + 50)})
    assert [e.kind for e in decide(opened).effects if e.kind == "perform"]


def test_a_record_that_waits_is_written_once() -> None:
    """Soak, window and retry: as time passes and nothing happens, no row changes and no words."""
    soaks = house_of("dev", "prod", soak=36000.0)
    turn(soaks)
    retries = house_of("dev")
    retries.settle()
    ask_for(retries, "g2")
    retries.faults.add("image")
    turn(retries)
    for house, name, first in ((soaks, "prod", "soak:"), (retries, "dev", "retry")):
        waits = house.records.instances[name].wait
        assert waits.startswith(first)
        for _ in range(5):
            house.now += 0.1
            assert house.cycle().change.instances == ()
        assert house.records.instances[name].wait == waits


def test_a_shut_window_is_told_in_its_own_time_and_once() -> None:
    """By the wall clock of its zone; the record that says so is not written a second time."""
    house = house_of("dev")
    window = Window("0 2 * * *", 3600.0, "Europe/Berlin")
    house.instances["dev"] = replace(house.instances["dev"], window=window)
    turn(house, 8)
    for seconds in range(5):
        world = replace(house.world(), now=house.now + seconds)
        plan = decide(replace(world, windows={"dev": window_state(window, world.now)}))
        house.records = stored(house.records, plan.change)
        said = house.records.instances["dev"].wait
        assert said == "window: opens at 1970-01-01 02:00 Europe/Berlin"
        assert bool(plan.change.instances) == (seconds == 0)


def test_a_suspended_environment_is_left_alone_and_its_builds_too() -> None:
    """Suspend stops builds and activations; resume lets them go on."""
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
    """Not of unknown health: someone said so."""
    house = house_of("dev", "prod")
    house.settle()
    house.ask(Verb.SUSPEND, "instance/dev")
    turn(house)
    (found,) = status(None, house.records, house.now).environments
    assert found.health is Health.SUSPENDED
    house.ask(Verb.RESUME, "instance/dev")
    turn(house)
    assert status(None, house.records, house.now).environments[0].health is Health.HEALTHY


def test_a_condition_that_holds_tells_of_nothing_wrong() -> None:
    """After a rollback an instance is ready, and stalled with the reason."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "l2")
    house.settle()
    (found,) = status(None, house.records, house.now).instances
    told = {c.type: (c.status, bool(c.message)) for c in found.conditions}
    assert told == {"Ready": (True, False), "Reconciling": (False, False), "Stalled": (True, True)}


def test_a_build_that_is_tried_again_says_why() -> None:
    """A failure that may pass is told while it lasts, and no longer once the build is made."""
    house = house_of("dev")
    house.faults.add("build")
    for _ in range(3):
        turn(house)
        house.now += 3600.0
    (found,) = status(None, house.records, house.now).environments
    (reconciling,) = (c for c in found.conditions if c.type == "Reconciling")
    (ready,) = (c for c in found.conditions if c.type == "Ready")
    assert "failed 3 times and is tried again: no answer" in reconciling.message
    assert ready.message == reconciling.message
    house.faults.clear()
    turn(house)
    (found,) = status(None, house.records, house.now).environments
    assert not any("no answer" in c.message for c in found.conditions)


def test_suspending_in_the_drain_gives_the_pools_back() -> None:
    """Before the switch a suspension ends the activation with nothing changed."""
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


def test_a_newer_revision_cancels_the_build_of_the_older() -> None:
    """Only the newest revision's build goes on."""
    house = house_of("dev")
    turn(house, 2)
    ask_for(house, "g2")
    plan = house.cycle()
    old = [b for b in house.records.builds.values() if b.recipe_digest == "g1"]
    assert [b.phase for b in old] == [BuildPhase.CANCELLED]
    assert plan.cancels == (old[0].key,)


def test_a_build_is_not_blamed_for_an_image_that_cannot_be_pulled() -> None:
    """The instance goes back, and the same build is tried again by itself after a while."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    house.faults.add("image")
    turn(house)
    record = house.records.instances["dev"]
    assert record.activation is None
    assert record.quarantines == ()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert record.wait.startswith("retry at ")
    assert record.problem is not None
    assert record.problem.reason == "ImagePull"
    house.faults.clear()
    house.settle()
    assert house.airflow["dev"].running == "g2@cp311-linux-1"


def test_what_a_step_waits_for_is_told() -> None:
    """In the Reconciling condition, until the next step begins."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].tasks.append("g1@cp311-linux-1")
    ask_for(house, "g2")
    turn(house, 12)
    record = house.records.instances["dev"]
    assert record.activation is not None
    assert record.activation.held == Problem("DrainTimeout", "tasks still run")
    (found,) = status(None, house.records, house.now).instances
    (reconciling,) = [c for c in found.conditions if c.type == "Reconciling"]
    assert reconciling.message == "tasks still run"


def test_a_quarantine_lasts_until_the_definition_changes_or_someone_retries() -> None:
    """A quarantined build is not tried again by itself; a retry tries it once more."""
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
    """`rollback` returns to what was active before, and the newest is not tried again."""
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
    """What page and CLI name is where it goes; past a build in quarantine there is no way."""
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
        assert answer.data.get("to", "") == to
        assert said in answer.message
        assert house.airflow["dev"].running == "g1@cp311-linux-1"


def test_a_rollback_never_ends_on_the_bare_base() -> None:
    """Neither from the first build, nor when the build before fails: it stays as it was."""
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
    assert house.records.instances["dev"].current == "g2@cp311-linux-1"


def test_a_rollback_does_not_go_forward() -> None:
    """While a newer build waits for its turn, a rollback would take that: it is refused."""
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


def test_losing_most_definitions_changes_nothing_until_confirmed() -> None:
    """The prune guard holds a revision that removes most objects; a confirmation lets it pass."""
    house = house_of("a", "b", "c")
    house.settle()
    kept = dict(house.environments), dict(house.instances)
    house.environments.clear()
    house.instances.clear()
    house.commit()
    house.settle()
    assert house.records.source_problem is not None
    assert house.records.source_problem.reason == "PruneHeld"
    assert set(house.records.instances) == {"a", "b", "c"}
    assert house.airflow["a"].running == "g1@cp311-linux-1"
    house.environments, house.instances = kept
    house.environments.clear()
    house.commit()
    house.ask(Verb.CONFIRM_PRUNE, "")
    house.settle()
    assert house.airflow["a"].running is None


def test_losing_all_environments_is_held_however_many_instances_there_are() -> None:
    """What is left of one kind does not outweigh the loss of the other; one object may go."""
    house = house_of("a", "b", "c", "d", "e")
    house.environments["one"] = environment("one", "g1", (Wave(("a", "b", "c")),))
    house.environments["two"] = environment("two", "g1", (Wave(("d", "e")),))
    house.commit()
    house.settle()
    two = house.environments.pop("two")
    house.commit()
    house.settle()
    assert house.records.source_problem is None
    house.environments["two"] = two
    house.commit()
    house.settle()
    house.environments.clear()
    house.commit()
    house.settle()
    assert house.records.source_problem is not None
    assert house.records.source_problem.reason == "PruneHeld"
    assert house.airflow["a"].running == "g1@cp311-linux-1"


def test_a_confirmation_waits_until_something_is_read() -> None:
    """Asked while no daemon ran: the first cycle of the next has read nothing yet."""
    house = house_of("a")
    house.settle()
    house.crash()
    house.ask(Verb.CONFIRM_PRUNE, "")
    house.cycle()
    assert [request.verb for request in house.requests] == [Verb.CONFIRM_PRUNE]
    house.settle()
    assert house.requests == []
    assert house.events[-1].kind == "PruneConfirmed"
    assert house.records.prune_confirmed == "r1"


def test_every_answer_to_a_request_has_its_number() -> None:
    """Carried out or refused: whoever waits for it need not read the words."""
    house = house_of("a")
    house.settle()
    before = len(house.events)
    house.ask(Verb.SUSPEND, "instance/a")
    house.ask(Verb.RETRY, "instance/gone")
    house.ask(Verb.ROLLBACK, "instance/a")
    house.cycle()
    found = [(e.data["request"], e.kind) for e in house.events[before:]]
    assert found == [(1, "Suspended"), (2, "RequestRefused"), (3, "RollbackRefused")]


def test_a_broken_file_keeps_what_was_accepted() -> None:
    """An object whose file is broken is Stalled and stays as it is, never taken for deleted."""
    house = house_of("dev")
    house.settle()
    place = Place("teams/red/one.yaml", 4, 7)
    house.findings = (Finding(place, "Environment/one", "UnknownKey", "no such key"),)
    house.commit()
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    shown = status(house.definitions(), house.records, house.now).environments[0]
    stalled = [c for c in shown.conditions if c.type == "Stalled"]
    assert [c.reason for c in stalled if c.status] == ["UnknownKey"]


def renamed_badly(house: House, name: str) -> None:
    """The next revision has the environment's and the instance's files renamed, with mistakes.

    `name` is what the mistakes call them: "one" and "dev", or nothing when no name can be read.
    """
    kinds = (("teams/red/new.yaml", "Environment/one"), ("instances/new.yaml", "Instance/dev"))
    house.findings = tuple(
        Finding(Place(file, 5, 3), known if name else file, "UnknownKey", "no such key")
        for file, known in kinds
    )
    del house.environments["one"], house.instances["dev"]
    house.commit()


@pytest.mark.parametrize("name", ["its name", ""], ids=["named", "of which no name can be read"])
def test_a_file_that_is_renamed_with_a_mistake_deletes_nothing(name: str) -> None:
    """Where the objects of a broken file were recorded from another, they are kept all the same."""
    house = house_of("dev", "test", "prod")
    house.settle()
    kept = dict(house.environments), dict(house.instances)
    renamed_badly(house, name)
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert not {"EnvironmentDeleted", "InstanceRemoved"} & {e.kind for e in house.events}
    (shown,) = status(house.definitions(), house.records, house.now).environments
    (stalled,) = [c for c in shown.conditions if c.type == "Stalled"]
    assert stalled.reason == "UnknownKey"
    assert "teams/red/new.yaml:5:3" in stalled.message
    house.environments, house.instances = kept
    house.findings = ()
    house.environments["one"] = environment("one", "g2", house.environments["one"].rollout)
    house.commit()
    house.settle()
    assert house.airflow["dev"].running == "g2@cp311-linux-1"


def test_a_mistake_in_a_file_keeps_no_other_object_from_being_deleted() -> None:
    """An unreadable file that is known to hold one object is not taken for one that is gone."""
    house = house_of("dev", "prod")
    house.environments["one"] = environment("one", "g1", (Wave(("dev",)),))
    house.environments["two"] = environment("two", "g2", (Wave(("prod",)),))
    house.commit()
    house.settle()
    del house.environments["one"]
    house.findings = (
        Finding(Place("teams/red/two.yaml", 3), "teams/red/two.yaml", "InvalidYaml", "no YAML"),
        Finding(Place("teams/blue/x.yaml", 3), "teams/blue/x.yaml", "InvalidYaml", "no YAML"),
    )
    house.commit()
    house.settle()
    assert house.airflow["dev"].running is None
    assert house.airflow["prod"].running == "g2@cp311-linux-1"


def test_a_new_base_is_resolved_anew_and_activated() -> None:
    """After an upgrade of Airflow the instance gets a build for its new runtime."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].upgrade()
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-2"
    assert status(None, house.records, house.now).instances[0].sync is Sync.SYNCED


def test_a_build_for_another_base_is_none_to_go_back_to() -> None:
    """What ran on the base before is no build for this one: a rollback to it is refused."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].patch()
    house.settle()
    record = house.records.instances["dev"]
    assert record.current_runtime == record.runtime.key  # type: ignore[union-attr]
    assert record.previous is None
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    assert [e.kind for e in house.events if e.kind.startswith("Rollback")] == ["RollbackRefused"]
    assert house.records.instances["dev"].current == record.current


def test_a_patched_base_goes_on_with_its_build_until_it_has_one_of_its_own() -> None:
    """A failed activation there ends on the build before, not on the bare base."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].patch()
    house.faults.add("build")
    turn(house)
    record = house.records.instances["dev"]
    assert record.current == house.airflow["dev"].running == "g1@cp311-linux-1"
    assert status(None, house.records, house.now).instances[0].sync is Sync.OUT_OF_SYNC
    ask_for(house, "l2")
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert [e.data["to"] for e in house.events if e.kind == "RolledBack"] == ["g1@cp311-linux-1"]
    ask_for(house, "g3")
    house.settle()
    assert house.airflow["dev"].running == "g3@cp311-linux-2"


def test_a_patched_base_whose_environment_is_deleted_is_left_bare() -> None:
    """Though nothing was built for it yet: it still loads the build of the base before."""
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
    """When going back fails too it is Degraded, tried again, and left by a newer good build."""
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
    assert [e.kind for e in house.events].count("Degraded") == 1
    ask_for(house, "g3")
    house.settle()
    assert house.airflow["dev"].running == "g3@cp311-linux-1"


def test_a_deleted_environment_returns_its_instances_to_the_bare_base() -> None:
    """Deletion drains, switches to nothing, restarts and probes like any other activation."""
    house = house_of("dev")
    house.settle()
    house.environments.clear()
    house.commit()
    house.settle()
    assert house.airflow["dev"].running is None
    assert house.records.instances["dev"].current is None


def test_builds_are_bounded_and_fair_between_teams() -> None:
    """A team with many builds does not keep another from its first."""
    house = House()
    for number in range(4):
        name = f"red{number}"
        house.instances[name] = instance(name)
        house.airflow[name] = Airflow()
        waves = (Wave((name,)),)
        house.environments[name] = environment(name, f"g{name}", waves)
    house.instances["blue"] = instance("blue", "blue")
    house.airflow["blue"] = Airflow()
    house.environments["zz"] = environment("zz", "gblue", (Wave(("blue",)),), "blue")
    house.commit()
    house.cycle()
    for key in list(house.under_way):
        house.act(key)
    house.cycle()
    running = [b for b in house.records.builds.values() if b.phase is BuildPhase.RESOLVING]
    assert sorted(b.team for b in running) == ["blue", "red"]


def test_what_many_environments_ask_for_alike_is_built_once_and_found_by_the_others() -> None:
    """One of them is built; meanwhile the others take no place, then all go on at once."""
    house = House()
    for number in range(6):
        name = f"red{number}"
        house.instances[name] = instance(name)
        house.airflow[name] = Airflow()
        house.environments[name] = environment(name, "g1", (Wave((name,)),))
    house.instances["other"] = instance("other")
    house.airflow["other"] = Airflow()
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
    assert {a.running for a in house.airflow.values()} == {
        "g1@cp311-linux-1", "g2@cp311-linux-1"
    }  # fmt: skip


# ------------------------------------------------------------------------------ the import budget


def limit_to(house: House, files: int) -> None:
    house.environments["one"] = limited(house.environments["one"], files)
    house.commit()


def builds_of(house: House) -> dict[str, BuildPhase]:
    return {b.recipe_digest: b.phase for b in house.records.builds.values()}


def test_a_build_over_the_limit_touches_nothing_live() -> None:
    """It fails at the limit's line; the instance runs what it had; a raised limit heals it."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g5")
    limit_to(house, 300)
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    (failed,) = [e for e in house.events if e.kind == "BuildFailed"]
    assert failed.reason == "ImportBudgetExceeded"
    assert failed.data["place"] == "teams/red/one.yaml:9"
    assert "allows 300 files" in failed.message
    limit_to(house, 500)
    house.settle()
    assert house.airflow["dev"].running == "g5@cp311-linux-1"


def test_a_lowered_limit_refuses_an_active_build_and_leaves_it_running() -> None:
    """The commit of the limit is what failed; nothing goes back, and no other build is made."""
    house = house_of("dev")
    ask_for(house, "g5")
    house.settle()
    switched = house.switched
    limit_to(house, 300)
    house.settle()
    assert builds_of(house) == {"g5": BuildPhase.FAILED}
    (failed,) = [e for e in house.events if e.kind == "BuildFailed"]
    assert failed.revision == f"r{house.revision}"
    found = status(None, house.records, house.now)
    assert found.environments[0].health is Health.DEGRADED
    assert house.airflow["dev"].running == "g5@cp311-linux-1"
    assert house.switched == switched
    limit_to(house, 0)
    house.settle()
    assert builds_of(house) == {"g5": BuildPhase.READY}
    assert status(None, house.records, house.now).environments[0].health is Health.HEALTHY
    assert house.switched == switched


def test_a_limit_that_is_kept_starts_nothing() -> None:
    """What was measured is enough: no build is queued, and nothing is said of one."""
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
    house.instances["other"] = instance("other")
    house.airflow["other"] = Airflow()
    house.environments["two"] = limited(environment("two", "g5", (Wave(("other",)),)), 300)
    ask_for(house, "g5")
    house.settle()
    assert house.airflow["dev"].running == "g5@cp311-linux-1"
    assert house.airflow["other"].running is None
    phases = {b.environment: b.phase for b in house.records.builds.values()}
    assert phases == {"one": BuildPhase.READY, "two": BuildPhase.FAILED}


def test_a_regression_is_marked_against_the_build_before() -> None:
    """Of the same environment and runtime; the first of a new runtime has nothing to compare."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g4")
    house.settle()
    first, second = [e for e in house.events if e.kind == "BuildReady"]
    assert (first.reason, first.data["import_before"]) == ("BuildReady", None)
    assert second.reason == "ImportRegression"
    assert "imports 100 files → 400 files (+300 %)" in second.message
    assert second.data["import_growth"] == {"files": 4.0, "opens": 4.0}
    before = second.data["import_before"]
    assert isinstance(before, dict)
    assert (before["build"], before["files"]) == ("g1@cp311-linux-1", 100)
    (active,) = [e for e in house.events if e.kind == "ActivationActive" and e.data["from"]]
    assert "100 files → 400 files (+300 %)" in active.data["imports_grown"]  # type: ignore[operator]
    house.airflow["dev"].upgrade()
    house.settle()
    third = [e for e in house.events if e.kind == "BuildReady"][-1]
    assert (third.reason, third.data["import_before"]) == ("BuildReady", None)


def test_less_is_no_regression_and_failed_builds_are_no_measure() -> None:
    """What was refused was never the build before."""
    house = house_of("dev")
    ask_for(house, "g4")
    house.settle()
    ask_for(house, "g9")
    limit_to(house, 500)
    house.settle()
    ask_for(house, "g3")
    house.settle()
    last = [e for e in house.events if e.kind == "BuildReady"][-1]
    assert last.reason == "BuildReady"
    before = last.data["import_before"]
    assert isinstance(before, dict)
    assert before["files"] == 400


# --------------------------------------------------------------------------- what cannot be read


def test_an_environment_that_cannot_be_read_leaves_its_instances_alone() -> None:
    """They are not taken to the bare base, and nothing is written in its place."""
    house = house_of("a", "b")
    turn(house)
    before = house.records
    assert before.instances["a"].current == "g1@cp311-linux-1"
    house.records = replace(before, environments={}, unreadable=frozenset({"environment/one"}))
    house.decider.forget()
    turn(house)
    now = house.records
    assert [i.current for i in now.instances.values()] == ["g1@cp311-linux-1"] * 2
    assert all(i.activation is None for i in now.instances.values())
    assert (now.environments, now.builds.keys()) == ({}, before.builds.keys())
    (found,) = now.findings
    assert (found.object, found.reason) == ("Environment/one", "RecordUnreadable")
    house.records = replace(now, environments=before.environments, unreadable=frozenset())
    ask_for(house, "g2")
    turn(house)
    assert house.records.instances["a"].current == "g2@cp311-linux-1"
    assert house.records.findings == ()


def test_an_instance_that_cannot_be_read_holds_only_those_behind_it() -> None:
    """Its environment goes on elsewhere; it is neither added anew nor passed over in its wave."""
    house = house_of("a", "b", "c")
    turn(house)
    before = house.records
    house.records = replace(
        before,
        instances={k: v for k, v in before.instances.items() if k != "b"},
        unreadable=frozenset({"instance/b"}),
    )
    ask_for(house, "g2")
    turn(house)
    now = house.records
    assert now.instances.keys() == {"a", "c"}
    assert now.instances["a"].current == "g2@cp311-linux-1"
    assert "wave 2: b has no healthy build" in now.instances["c"].wait
    assert [f.object for f in now.findings] == ["Instance/b"]
