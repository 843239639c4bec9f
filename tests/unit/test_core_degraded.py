"""Instances that rolling back did not repair, and others beside them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from reconciler.core.definitions import Wave
from reconciler.core.model import InstanceRecord, Verb
from reconciler.core.phases import Step
from tests.fakes.airflow import Airflow
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import POLICY, House


def house_of(*names: str, load_into: tuple[str, ...] = ("scheduler",)) -> House:
    """Return instances in separate waves, in one environment, settled on `g1`."""
    house = House()
    for name in names:
        house.join(replace(instance(name), load_into=load_into))
    house.environments["one"] = environment("one", "g1", tuple(Wave((name,)) for name in names))
    house.commit()
    house.settle()
    return house


def ask_for(house: House, digest: str) -> None:
    house.environments["one"] = replace(
        house.environments["one"], recipe=environment("one", digest, ()).recipe
    )
    house.commit()


def go_on(house: House, times: int = 60, seconds: float = 30.0) -> None:
    """Continue with all faults."""
    for _ in range(times):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += seconds


def degraded(house: House, digest: str) -> None:
    """Return a build on which no restart works, nor on the previous one."""
    ask_for(house, digest)
    house.faults.add("restart")
    go_on(house)


def of(house: House, name: str = "dev") -> InstanceRecord:
    return house.records.instances[name]


def test_a_broken_build_that_is_left_may_still_be_loaded_and_is_kept_for_that() -> None:
    """It counts as retired from then on, as processes that loaded it may be alive."""
    house = house_of("dev")
    degraded(house, "g2")
    begun = house.now
    ask_for(house, "g3")
    house.settle()
    assert of(house).current.build == "g3@cp311-linux-1"
    assert dict(of(house).retired)["g2@cp311-linux-1"] >= begun


def test_what_loaded_a_broken_build_is_restarted_when_that_is_left() -> None:
    """A component that loads neither the previous build nor the newer one is included."""
    house = house_of("dev")
    house.instances["dev"] = replace(house.instances["dev"], load_into=("scheduler", "api-server"))
    degraded(house, "g2")
    house.instances["dev"] = replace(house.instances["dev"], load_into=("scheduler",))
    ask_for(house, "g3")
    house.settle()
    last = of(house).last
    assert last is not None
    assert last.target.build == "g3@cp311-linux-1"
    assert last.components == {"scheduler", "api-server"}
    assert (last.target.load_into, last.origin.load_into) == (("scheduler",), ("scheduler",))


def test_a_degraded_instance_that_is_suspended_only_goes_back() -> None:
    """No newer build is activated until it is resumed."""
    house = house_of("dev")
    degraded(house, "g2")
    house.ask(Verb.SUSPEND, "instance/dev")
    ask_for(house, "g3")
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    house.ask(Verb.RESUME, "instance/dev")
    house.settle()
    assert house.airflow["dev"].running == "g3@cp311-linux-1"


def test_a_degraded_instance_of_a_later_wave_waits_for_the_earlier() -> None:
    """It does not try a newer build before the instances that must try it first."""
    house = house_of("dev", "prod")
    ask_for(house, "g2")
    while of(house, "prod").activation is None:
        go_on(house, 1, 1.0)
    house.faults.add("restart")
    go_on(house)
    activation = of(house, "prod").activation
    assert activation is not None
    assert activation.reverts
    ask_for(house, "l3")
    house.settle()
    assert {house.airflow[n].running for n in ("dev", "prod")} == {
        "g2@cp311-linux-1",
        "g1@cp311-linux-1",
    }
    assert ("prod", "l3@cp311-linux-1") not in house.failed_live


class Needy(Airflow):
    """Airflow whose DAGs need the team's packages: it is not healthy on the bare base."""

    def start(self, kept: Collection[str] = ()) -> None:
        super().start(kept)
        self.healthy = self.healthy and self.running is not None


def test_a_degraded_instance_whose_airflow_is_upgraded_gets_a_build_for_that() -> None:
    """Its base is inspected during the activation: rolling back can never repair it."""
    house = house_of("dev")
    real = house.airflow["dev"] = Needy(**vars(house.airflow["dev"]))
    degraded(house, "g2")
    real.upgrade()
    house.settle()
    assert (real.running, real.healthy) == ("g2@cp311-linux-2", True)
    assert of(house).current.build == "g2@cp311-linux-2"
    assert "g2@cp311-linux-1" in dict(of(house).retired)
    assert "g1@cp311-linux-1" in dict(of(house).retired)


def test_a_degraded_instance_whose_base_is_patched_goes_back_to_its_build() -> None:
    """It returns neither to the failed build, nor to the bare base, where nothing can be built."""
    house = house_of("dev")
    real = house.airflow["dev"] = Needy(**vars(house.airflow["dev"]))
    degraded(house, "g2")
    shown = of(house).problem
    assert shown is not None
    real.patch()
    house.faults.add("build")
    go_on(house)
    assert of(house).runtime is not None
    assert of(house).inherits
    assert of(house).problem is not None, "why it is degraded is still told"
    house.faults.discard("restart")
    go_on(house, 120)
    assert of(house).activation is None
    assert real.running == of(house).current.build == "g1@cp311-linux-1"


def other_teams_instance(house: House, digest: str) -> None:
    house.join(instance("blue", "blue"))
    house.environments["blue"] = environment("blue", digest, (Wave(("blue",)),), "blue")
    house.commit()


def crowd(house: House) -> None:
    """Return the maximum number of instances of one team in activation, all changed again."""
    for number in range(POLICY.parallel_activations):
        name = f"red{number}"
        house.join(instance(name))
        house.environments[name] = environment(name, f"g-{name}", (Wave((name,)),))
    house.commit()


def test_degraded_instances_take_no_place_of_others() -> None:
    """Another team's instance is activated, however often they are retried."""
    house = House()
    crowd(house)
    house.faults.add("restart")
    go_on(house)
    assert all(record.activation for record in house.records.instances.values())
    other_teams_instance(house, "g1")
    go_on(house, 20, 1.0)
    activation = of(house, "blue").activation
    assert activation is not None, of(house, "blue").wait


def test_instances_whose_pools_cannot_be_given_back_take_no_place_of_others() -> None:
    """Their Airflow is silent at the last step, for any length of time."""
    house = House()
    crowd(house)
    for _ in range(30):
        house.cycle()
        running = {n: r.activation for n, r in house.records.instances.items() if r.activation}
        at_the_end = {n for n, activation in running.items() if activation.step is Step.RELEASE}
        for key in [k for k in house.under_way if k[1] not in at_the_end]:
            house.act(key)
        house.now += 1.0
    house.faults.add("api")
    go_on(house, 2, 1.0)
    assert all(r.activation is not None for r in house.records.instances.values())
    other_teams_instance(house, "g1")
    house.faults.clear()
    for _ in range(30):
        house.cycle()
        for key in [k for k in house.under_way if not k[1].startswith("red")]:
            house.act(key)
        house.now += 1.0
    assert house.airflow["blue"].running == "g1@cp311-linux-1"
