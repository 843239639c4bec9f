"""An instance has at most one environment, even if files break while it moves to another."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.definitions import Commit, Finding, Place, Wave
from reconciler.core.model import EnvironmentRecord, Problem
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from reconciler.core.world import owned
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

DEV, PROD = (Wave((name,)) for name in ("dev", "prod"))


def house_of_two() -> House:
    """Return a house where `one` has dev on `g1`, and `two` has prod on `g2`."""
    house = House()
    for name in ("dev", "prod"):
        house.join(instance(name))
    house.environments["one"] = environment("one", "g1", (DEV,))
    house.environments["two"] = environment("two", "g2", (PROD,))
    house.commit()
    house.settle()
    return house


def broken(house: House, name: str) -> None:
    location = house.environments[name].place
    house.findings = (Finding(location, f"Environment/{name}", Reason.UNKNOWN_KEY, "no such key"),)


def names(house: House) -> dict[str, list[str]]:
    environments = house.records.environments.values()
    return {e.name: [i for w in e.definition.rollout for i in w.instances] for e in environments}


def test_an_instance_goes_over_though_the_file_that_lets_it_go_has_a_mistake() -> None:
    """Both files are in one commit; the broken one keeps instances that nobody else names."""
    house = house_of_two()
    house.environments["one"] = environment("one", "g1", (DEV, PROD))
    broken(house, "two")
    house.commit()
    house.settle()
    assert names(house) == {"one": ["dev", "prod"], "two": []}
    assert house.airflow["prod"].running == "g1@cp311-linux-1"
    shown = {e.name: e for e in status(house.definitions(), house.records, house.now).environments}
    assert [c.reason for c in shown["two"].conditions if c.type == "Stalled"] == ["UnknownKey"]


def test_an_instance_that_moves_to_another_team_has_that_teams_environment() -> None:
    """The old team's file, which names an instance that is no longer its own, has no effect."""
    house = house_of_two()
    house.instances["prod"] = instance("prod", "blue")
    house.environments["blue"] = environment("blue", "g3", (PROD,), "blue")
    broken(house, "two")
    house.commit()
    house.settle()
    assert names(house) == {"one": ["dev"], "two": [], "blue": ["prod"]}
    assert house.airflow["prod"].running == "g3@cp311-linux-1"


def test_a_mended_file_has_again_what_nobody_else_names() -> None:
    """The instances that it was kept without return with the file itself."""
    house = house_of_two()
    house.environments["one"] = environment("one", "g1", (DEV, PROD))
    broken(house, "two")
    house.commit()
    house.settle()
    house.environments["one"] = environment("one", "g1", (DEV,))
    house.findings = ()
    house.commit()
    house.settle()
    assert names(house) == {"one": ["dev"], "two": ["prod"]}
    assert house.airflow["prod"].running == "g2@cp311-linux-1"


def test_who_owns_an_instance_does_not_depend_on_the_order_of_rows() -> None:
    """Until the repo is read, the records of an earlier version may name one instance twice."""
    sound = EnvironmentRecord("aa", "red", environment("aa", "g1", (DEV,)), Commit("r1"))
    other = replace(
        sound,
        name="zz",
        definition=environment("zz", "g2", (DEV,)),
        problem=Problem(Reason.UNKNOWN_KEY, "no such key", Place("teams/red/zz.yaml", 3)),
    )
    assert owned([sound, other]) == owned([other, sound]) == {"dev": "aa"}
