"""Clusters have separate slots, and share them fairly between teams."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from reconciler.core.builds import RUNNING
from reconciler.core.decide import decide
from reconciler.core.definitions import IN_CLUSTER, Instance, KubernetesTarget, Wave
from reconciler.core.phases import BuildPhase
from reconciler.core.world import Policy
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

PER_CLUSTER = Policy(parallel_builds=1, builds_at={"east": 2, IN_CLUSTER: 3})


def on(context: str | None, name: str, team: str) -> Instance:
    target = KubernetesTarget("airflow", name, context)
    return replace(instance(name, team), local=None, kubernetes=target)


def house_of(*instances: Instance) -> House:
    """Return one environment for each instance, every base inspected, every build queued."""
    house = House()
    for one in instances:
        house.join(one)
        waves = (Wave((one.name,), 0.0),)
        house.environments[one.name] = environment(one.name, f"g-{one.name}", waves, one.team)
    house.commit()
    return house


def started(house: House, policy: Policy) -> Counter[str]:
    """Return the builds that a decision starts, by instance, once every base is known."""
    for _ in range(10):
        house.cycle()
        for key in [k for k in house.under_way if k[0] == "inspect"]:
            house.act(key)
    records = house.records
    queued = {k: replace(b, phase=BuildPhase.QUEUED) for k, b in records.builds.items()}
    world = replace(house.world(), records=replace(records, builds=queued), policy=policy)
    return Counter(b.environment for b in decide(world).change.builds if b.phase in RUNNING)


def test_each_cluster_fills_its_own_places() -> None:
    """A cluster whose builds hang uses no slot of another, nor of this machine."""
    house = house_of(
        *(on("east", f"e{n}", "red") for n in range(5)),
        *(on(None, f"i{n}", "red") for n in range(5)),
        *(instance(f"l{n}") for n in range(5)),
    )
    names = started(house, PER_CLUSTER)
    assert Counter(name[0] for name in names) == {"e": 2, "i": 3, "l": 1}


def test_a_clusters_places_are_shared_between_teams() -> None:
    """One team's many builds leave a slot for another team's only one."""
    house = house_of(*(on("east", f"many{n}", "red") for n in range(6)), on("east", "only", "blue"))
    assert "only" in started(house, PER_CLUSTER)


def test_a_cluster_that_is_not_named_has_the_documented_places() -> None:
    """Its limits are those of any cluster, whatever this machine's are."""
    house = house_of(*(on("west", f"w{n}", "red") for n in range(6)), instance("l0"))
    names = started(house, replace(PER_CLUSTER, cluster_builds=4))
    assert Counter(name[0] for name in names) == {"w": 4, "l": 1}
