"""Every sequence that is cut short after or within any of its moves ends the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from reconciler.core.definitions import Wave
from reconciler.core.model import Verb
from tests.fakes.airflow import POOLS
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House


def begin(digest: str) -> House:
    """Return one environment on one instance, settled on `digest`."""
    house = House()
    house.join(instance("a"))
    house.environments["one"] = environment("one", digest, (Wave(("a",)),))
    house.commit()
    house.settle()
    return house


def change(house: House, digest: str) -> None:
    house.environments["one"] = environment("one", digest, (Wave(("a",)),))
    house.commit()


def first_build(house: House) -> None:
    change(house, "g2")


def fails_live(house: House) -> None:
    change(house, "l2")


def fails_verification(house: House) -> None:
    change(house, "v2")


def deleted(house: House) -> None:
    del house.environments["one"]
    house.commit()


def rolled_back_by_a_person(house: House) -> None:
    change(house, "g2")
    house.settle()
    house.ask(Verb.ROLLBACK, "instance/a")


def restart_fails(house: House) -> None:
    change(house, "g2")
    house.faults.add("restart")


SCENARIOS = [
    first_build,
    fails_live,
    fails_verification,
    deleted,
    rolled_back_by_a_person,
    restart_fails,
]


def moves(house: House) -> Iterator[str]:
    """Yield one move at a time, a cycle or an effect, until nothing has happened for a while."""
    for _ in range(40):
        yield "cycle"
        for _ in list(house.under_way):
            yield "act"
        house.now += 1.0


def outcome(house: House) -> tuple[object, ...]:
    """Return what is visible at the end."""
    record, real = house.records.instances["a"], house.airflow["a"]
    marks = tuple(q.build_id for q in record.quarantines)
    return record.current.build, real.pointer, real.running, tuple(real.pools.items()), marks


def play(scenario: Callable[[House], None], cut: int, how: str) -> tuple[House, bool]:
    """Play a scenario, cut at its `cut`-th move; return False once there is no such move."""
    house = begin("g1")
    scenario(house)
    reached = False
    for number, move in enumerate(moves(house)):
        last = number == cut
        if move == "cycle":
            house.cycle(
                die_before_record=last and how == "before",
                die_after_record=last and how != "before",
            )
        else:
            house.act(next(iter(house.under_way)), halfway=last and how == "halfway")
        if last:
            house.crash()
            reached = True
            break
    house.settle()
    return house, reached


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("how", ["before", "halfway", "after"])
def test_cut_short_anywhere_it_ends_the_same(scenario: Callable[[House], None], how: str) -> None:
    """A kill at any move leaves a state from which the next start reaches the same end."""
    whole, _ = play(scenario, -1, how)
    for cut in range(200):
        house, reached = play(scenario, cut, how)
        if not reached:
            assert cut > 10, "the scenario is long enough to mean something"
            return
        real = house.airflow["a"]
        assert house.records.instances["a"].activation is None
        assert real.pools == POOLS
        assert real.running == real.pointer
        if scenario is not restart_fails:  # its fault is over at another moment
            assert outcome(house) == outcome(whole), f"cut at move {cut}"
    raise AssertionError("the scenario does not end")
