"""Status of all objects after a change: only what the change concerns is computed again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core import statuses
from reconciler.core.model import DagCheck, Records, RepoState
from reconciler.core.statuses import Statuses, status
from tests.fakes import fleet

SIZE = 40


@pytest.fixture
def records() -> Records:
    """Return environments with an instance and builds each, in all states."""
    numbers = range(SIZE)
    return Records(
        {e.name: e for e in map(fleet.environment, numbers)},
        {i.name: i for i in map(fleet.instance, numbers)},
        {b.key: b for number in numbers for b in fleet.builds(number)},
        RepoState(accepted_revision="r1"),
    )


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of objects of which a status is computed, as they come."""
    names: list[str] = []
    for kind in ("instance_status", "environment_status"):
        compute = getattr(statuses, kind)

        def counted(view, record, *more, compute=compute):  # type: ignore[no-untyped-def]
            names.append(record.name)
            return compute(view, record, *more)

        monkeypatch.setattr(statuses, kind, counted)
    return names


def test_a_changed_instance_costs_itself_and_its_environment(
    records: Records, computed: list[str]
) -> None:
    last = Statuses()
    assert len(last.of(records, 1.0).instances) == SIZE
    assert len(computed) == 2 * SIZE
    computed.clear()
    name = fleet.name_of(3)
    record = replace(records.instances[name], suspended=True)
    changed = replace(
        records,
        instances={**records.instances, name: record},
        repo=RepoState(accepted_revision="r2"),
    )
    shown = last.of(changed, 2.0)
    assert computed == [name, name]
    assert last.of(changed, 3.0) == shown
    assert len(computed) == 2, "the same records cost nothing"
    assert shown == status(None, changed, 2.0)


def test_objects_that_come_and_go_are_in_their_places(records: Records) -> None:
    """Whatever their order in the records, they are told by name."""
    first, last = fleet.name_of(0), fleet.name_of(SIZE - 1)
    statuses = Statuses()
    without = replace(
        records,
        environments={n: e for n, e in records.environments.items() if n != first},
        instances={n: i for n, i in records.instances.items() if n != last},
    )
    for now in (without, records, without):
        shown = statuses.of(now, 1.0)
        assert shown == status(None, now, 1.0)
        assert [i.name for i in shown.instances] == sorted(now.instances)
        assert [e.name for e in shown.environments] == sorted(now.environments)


def test_a_build_with_a_check_of_dags_concerns_the_instance_of_the_check(
    records: Records,
) -> None:
    """The instance shows it, and no longer when the build is gone."""
    name = fleet.name_of(0)
    wanted = status(None, records, 1.0).instances[0].wanted
    key = next(key for key, build in records.builds.items() if build.build_id == wanted)
    check = DagCheck(name, "a folder", 3)
    checked = replace(records.builds[key], dags=(check,))
    with_check = replace(records, builds={**records.builds, key: checked})
    statuses = Statuses()
    told = [statuses.of(now, 1.0).instances[0].dags for now in (records, with_check, records)]
    assert told == [None, check, None]
