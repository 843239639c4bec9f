"""The watch of a new build after its pools are restored: it goes back unless it stays healthy."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.definitions import Wave
from reconciler.core.machine import is_busy, stuck
from reconciler.core.model import InstanceRecord, Verb
from reconciler.core.phases import ActivationPhase, Step
from reconciler.core.reasons import Reason
from tests.fakes.airflow import POOLS
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

OLD, NEW = "g1@cp311-linux-1", "w2@cp311-linux-1"
WAVES = (Wave(("dev",)),)


def of(house: House) -> InstanceRecord:
    return house.records.instances["dev"]


def steps(house: House) -> Iterator[Step]:
    """Run cycles, and yield each step of the instance's activation before it is performed."""
    for _ in range(3000):
        house.cycle()
        activation = of(house).activation
        if activation is not None:
            yield activation.step
        for key in list(house.under_way):
            house.act(key)
        house.take_reports()
        house.now += 1.0
    raise AssertionError(f"no end: {of(house)}")


def watched(recipe: str = "w2") -> tuple[House, Iterator[Step]]:
    """Return an instance on `g1` whose next build is being watched: `w2` crashes once tasks run."""
    house = House()
    house.join(instance("dev"))
    house.environments["one"] = environment("one", "g1", WAVES)
    house.commit()
    house.settle()
    house.environments["one"] = environment("one", recipe, WAVES)
    house.commit()
    history = steps(house)
    assert Step.WATCH in history
    return house, history


def test_tasks_run_while_it_is_watched_and_it_is_not_active_yet() -> None:
    """Its pools have their earlier values, and it uses no slot of other activations."""
    house, _ = watched()
    activation = of(house).activation
    assert activation is not None
    assert activation.phase is ActivationPhase.WATCHING
    assert house.airflow["dev"].pools == POOLS
    assert of(house).current.build == OLD
    assert not is_busy(activation)


def test_it_goes_back_once_its_tasks_have_ended() -> None:
    """None of them is killed, however long it runs; the build is in quarantine afterwards."""
    house, history = watched()
    real = house.airflow["dev"]
    real.tasks.append(NEW)
    draining = [step for _, step in zip(range(700), history, strict=False)]
    assert draining[-1] is Step.DRAIN_BACK
    assert not any(real.pools.values())
    activation = of(house).activation
    assert activation is not None
    assert stuck(activation), "it is told, and takes no place of others"
    assert real.running == NEW
    real.tasks.clear()
    house.settle()
    assert real.running == of(house).current.build == OLD
    assert real.pools == POOLS
    assert [q.build_id for q in of(house).quarantines] == [NEW]
    (told,) = (e for e in house.events if e.kind == "RolledBack")
    assert told.reason == Reason.CRASH_LOOP


def test_an_airflow_that_is_silent_gets_its_servers_back_first() -> None:
    """Until then nobody can pause it or count its tasks; none of them is killed because of that."""
    house, history = watched()
    real = house.airflow["dev"]
    real.tasks.append(NEW)
    assert Step.PAUSE_BACK in history
    house.faults.add("api")
    assert Step.RESTART_SERVERS_BACK in history
    assert real.pointer == OLD
    assert real.running == NEW
    house.faults.clear()
    assert Step.DRAIN_BACK in history
    house.settle()
    assert real.running == of(house).current.build == OLD
    assert real.pools == POOLS


def test_an_operators_rollback_ends_the_watch() -> None:
    """It need not wait until the watch itself notices the problem."""
    house, _ = watched("g2")
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    assert of(house).current.build == OLD
    assert [q.who for q in of(house).quarantines] == ["someone"]
    kinds = [e.kind for e in house.events[-60:]]
    assert "RollbackRefused" not in kinds
    assert "RolledBack" not in kinds


def test_a_newer_commit_waits_for_the_end_of_the_watch() -> None:
    """The build to go back to has therefore always stayed healthy for the full time."""
    house, history = watched()
    house.environments["one"] = environment("one", "g3", WAVES)
    house.commit()
    assert Step.PAUSE_BACK in history
    house.settle()
    assert of(house).current.build == "g3@cp311-linux-1"
    assert of(house).previous.build == OLD
