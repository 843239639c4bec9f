"""What the core decides: waves, windows, suspension, quarantine, the prune guard."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.decide import decide
from reconciler.core.definitions import Finding, Place, Wave, Window
from reconciler.core.model import Verb
from reconciler.core.phases import BuildPhase, Health, Step, Sync
from reconciler.core.status import status
from reconciler.core.world import WindowState
from tests.fakes.house import Airflow, House, environment, instance


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


def test_a_new_base_is_resolved_anew_and_activated() -> None:
    """After an upgrade of Airflow the instance gets a build for its new runtime."""
    house = house_of("dev")
    house.settle()
    house.airflow["dev"].upgrade()
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-2"
    assert status(None, house.records, house.now).instances[0].sync is Sync.SYNCED


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
