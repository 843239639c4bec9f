"""Choice of the components that an activation restarts, and what is recorded of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.definitions import Instance, Wave
from reconciler.core.drift import Sight, record_sights
from reconciler.core.events import EventKind, RestartsLimited
from reconciler.core.loaded import Loaded
from reconciler.core.model import InstanceRecord, Verb
from reconciler.core.restarts import MOST_BEHIND, Content, Layout, Switch, kept, part_of
from reconciler.core.world import Draft
from tests.fakes import airflow
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

KUBERNETES = Layout(
    ("api-server", "dag-processor", "scheduler", "triggerer"), scheduler_runs_tasks=False
)
LOCAL = replace(KUBERNETES, scheduler_runs_tasks=True)
AIRFLOW_2 = Layout(("scheduler", "triggerer", "webserver"), scheduler_runs_tasks=False)
BEFORE = Content(
    {"lib": "1", "plugin": "1", "helper": "1", "deep": "1"},
    requires={"plugin": frozenset({"helper", "apache-airflow"}), "helper": frozenset({"deep"})},
    modules={"lib": frozenset({"acme"})},
    declaring=frozenset({"plugin"}),
    env={"AIRFLOW__CORE__X": "1", "MODE": "1"},
    files="f",
)
BOTH = ("api-server", "scheduler")


def changed(**values: str) -> Switch:
    return Switch(BEFORE, replace(BEFORE, distributions={**BEFORE.distributions, **values}))


@pytest.mark.parametrize(
    ("layout", "switch", "expected"),
    [
        (KUBERNETES, changed(lib="2"), BOTH),
        (KUBERNETES, changed(new="1"), BOTH),
        (KUBERNETES, changed(plugin="2"), ()),
        (KUBERNETES, changed(deep="2"), ()),
        (LOCAL, changed(lib="2"), ("api-server",)),
        (AIRFLOW_2, changed(lib="2"), ("webserver",)),
        (replace(KUBERNETES, configured=("acme",)), changed(lib="2"), ()),
        (replace(KUBERNETES, unknown="a plugin may import anything"), changed(lib="2"), ()),
        (KUBERNETES, Switch(BEFORE, replace(BEFORE, files="g")), BOTH),
        (KUBERNETES, Switch(BEFORE, replace(BEFORE, env={**BEFORE.env, "MODE": "2"})), BOTH),
        (KUBERNETES, Switch(BEFORE, replace(BEFORE, env={"MODE": "1"})), ()),
    ],
    ids=[
        "library",
        "added",
        "plugin",
        "required by a plugin",
        "tasks in the scheduler",
        "DAGs in the scheduler",
        "named by the configuration",
        "unknown",
        "files",
        "variable of tasks",
        "variable of Airflow",
    ],
)
def test_which_components_keep_running(
    layout: Layout, switch: Switch, expected: tuple[str, ...]
) -> None:
    """Servers and a scheduler that runs no tasks keep running unless what they load differs."""
    assert kept(layout, switch, (*layout.components, "worker")) == expected


def test_a_component_without_a_part_of_the_build_has_an_empty_part() -> None:
    """A build without anything that declares itself is nothing to an API server."""
    plain = Content({"lib": "1"}, env={"MODE": "1"}, files="f")
    assert part_of(plain, "api-server", KUBERNETES) == frozenset()
    assert len(part_of(plain, "dag-processor", KUBERNETES)) == 3


# ---------------------------------------------------------------------------------- in activations


def house_of(one: Instance) -> House:
    house = House()
    house.join(one)
    return house


def move(house: House, digest: str) -> InstanceRecord:
    """Commit a recipe, and return the record once it is active."""
    house.environments["one"] = environment("one", digest, (Wave(("dev",)),))
    house.commit()
    house.settle()
    return house.records.instances["dev"]


def limited(house: House) -> list[RestartsLimited]:
    payloads = [e.payload for e in house.events if e.kind is EventKind.RESTARTS_LIMITED]
    return [p for p in payloads if isinstance(p, RestartsLimited)]


def test_the_first_build_is_loaded_by_all_and_the_next_by_those_that_need_it() -> None:
    """History says which components kept running; the record which builds they may run."""
    house = house_of(instance("dev"))
    assert move(house, "g3").earlier == ()
    assert limited(house) == []
    record = move(house, "g4")
    (payload,) = limited(house)
    assert (payload.restarted, payload.kept) == (("dag-processor",), BOTH)
    old = ("g3@cp311-linux-1",)
    assert record.earlier == (("api-server", old), ("scheduler", old))
    message = next(e.message for e in house.events if e.kind is EventKind.RESTARTS_LIMITED)
    assert message == (
        "restarts dag-processor; keeps api-server, scheduler running, for which nothing changes"
    )


def test_what_kept_running_is_restarted_once_something_that_it_loads_changes() -> None:
    """The plugin of `g6` is another one; then nothing earlier runs any more."""
    house = house_of(instance("dev"))
    for digest in ("g3", "g4", "g6"):
        record = move(house, digest)
    assert record.earlier == ()
    assert {*house.airflow["dev"].selective.values()} == {record.current.build}


def test_an_instance_that_lists_its_components_restarts_all_of_them() -> None:
    """A list wins over what is worked out."""
    house = house_of(replace(instance("dev"), restarts_all=True))
    for digest in ("g3", "g4"):
        record = move(house, digest)
    assert (record.earlier, limited(house)) == ((), [])


def test_what_kept_running_is_not_turned_back() -> None:
    """A build that fails live is left by the components that were restarted, and by no other."""
    house = house_of(instance("dev"))
    move(house, "g3")
    record = move(house, "l4")
    assert record.last is not None
    assert record.last.kept == BOTH
    assert record.current.build == house.airflow["dev"].running == "g3@cp311-linux-1"
    assert {*house.airflow["dev"].selective.values()} == {"g3@cp311-linux-1"}


def test_a_component_never_falls_behind_without_end() -> None:
    """Old builds can be deleted only once no process runs them."""
    house = house_of(instance("dev"))
    move(house, "g3000")
    real = house.airflow["dev"]
    behind = dict.fromkeys(airflow.SELECTIVE, tuple(f"g{n}@x" for n in range(MOST_BEHIND)))
    record = house.records.instances["dev"]
    house.records = replace(
        house.records,
        instances={"dev": replace(record, earlier=tuple(sorted(behind.items())))},
    )
    record = move(house, "g3001")
    assert record.earlier == ()
    assert {*real.selective.values()} == {"g3001@cp311-linux-1"}


def test_components_that_kept_running_are_as_recorded() -> None:
    """One that runs an earlier build on purpose is no drift; another component with it is."""
    house = house_of(instance("dev"))
    for digest in ("g3", "g4"):
        record = move(house, digest)

    def seen(component: str) -> InstanceRecord:
        loaded = Loaded(component, "pid 1", "g3@cp311-linux-1")
        draft = Draft(house.world())
        record_sights(draft, {"dev": Sight(record.version, loaded=(loaded,))})
        return draft.instances["dev"]

    assert seen("scheduler").processes.problem is None
    assert seen("dag-processor").processes.problem is not None


def test_a_rollback_by_an_operator_restarts_what_a_commit_would() -> None:
    """Going back to the build before changes the library only."""
    house = house_of(instance("dev"))
    for digest in ("g3", "g4"):
        move(house, digest)
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    record = house.records.instances["dev"]
    assert record.current.build == "g3@cp311-linux-1"
    assert record.last is not None
    assert record.last.kept == BOTH
    left = ("g4@cp311-linux-1",)
    assert record.earlier == (("api-server", left), ("scheduler", left))
