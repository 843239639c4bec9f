"""House with one environment, and steps to drive it."""

from __future__ import annotations

from reconciler.core.definitions import Wave
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House


def house_of(*names: str, soak: float = 0.0) -> House:
    """Return instances in separate waves, in one environment on `g1`; nothing has happened yet."""
    house = House()
    for name in names:
        house.join(instance(name))
    waves = tuple(Wave((name,), soak) for name in names)
    house.environments["one"] = environment("one", "g1", waves)
    house.commit()
    return house


def ask_for(house: House, digest: str) -> None:
    old = house.environments["one"]
    house.environments["one"] = environment("one", digest, old.rollout)
    house.commit()


def turn(house: House, times: int = 30) -> None:
    """Continue without letting time pass to the next scheduled time."""
    for _ in range(times):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += 0.1
