"""Builds that have become useless: they release their slots, and are made again."""

from __future__ import annotations

import pytest

from reconciler.core.builds import RUNNING
from reconciler.core.definitions import Wave
from reconciler.core.model import Verb
from reconciler.core.phases import BuildPhase
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import POLICY, House
from tests.unit.waves import house_of, turn


def test_a_build_for_a_base_that_nobody_has_any_more_gives_its_place_up() -> None:
    """After an upgrade during the builds, those for the new base are still made."""
    house = House()
    for number in range(3):
        name = f"dev{number}"
        house.join(instance(name))
        house.environments[name] = environment(name, f"g{number}", (Wave((name,)),))
    house.commit()
    turn(house, 2)
    house.cycle()
    under_way = [b.key for b in house.records.builds.values() if b.phase in RUNNING]
    assert len(under_way) == POLICY.parallel_builds
    house.under_way.clear()  # the daemon carries out nothing for a base that it finds nowhere
    for real in house.airflow.values():
        real.upgrade()
    house.cycle()
    for key in list(house.under_way):
        if key[0] == "inspect":
            house.act(key)
    plan = house.cycle()
    assert set(under_way) <= set(plan.cancels)
    phases = {(b.runtime_key, b.phase) for b in house.records.builds.values()}
    assert {phase for key, phase in phases if key == "cp311-linux-1"} == {BuildPhase.CANCELLED}
    assert ("cp311-linux-2", BuildPhase.RESOLVING) in phases


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "under way"])
def test_what_one_teams_secrets_brought_is_made_anew_for_another(ready: bool) -> None:
    """An environment that moves to another team is built as that team's, with its secrets."""
    house = house_of("dev")
    turn(house, 30 if ready else 3)
    (old,) = house.records.builds.values()
    assert (old.team, old.phase is BuildPhase.READY) == ("red", ready)
    house.instances["dev"] = instance("dev", "blue")
    house.environments["one"] = environment("one", "g1", (Wave(("dev",)),), "blue")
    house.commit()
    plan = house.cycle()
    (new,) = house.records.builds.values()
    assert (new.team, new.phase) == ("blue", BuildPhase.RESOLVING)
    assert plan.cancels == (() if ready else (old.key,))
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"


def test_a_suspended_environment_that_moves_takes_no_build_with_it() -> None:
    """The old team's build is cancelled; the new team's starts once the environment is resumed."""
    house = house_of("dev")
    turn(house, 3)
    house.ask(Verb.SUSPEND, "environment/one")
    house.instances["dev"] = instance("dev", "blue")
    house.environments["one"] = environment("one", "g1", (Wave(("dev",)),), "blue")
    house.commit()
    house.cycle()
    (old,) = house.records.builds.values()
    assert (old.team, old.phase) == ("red", BuildPhase.CANCELLED)
    house.ask(Verb.RESUME, "environment/one")
    house.settle()
    (new,) = house.records.builds.values()
    assert (new.team, new.phase) == ("blue", BuildPhase.READY)
