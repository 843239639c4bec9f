"""Repeated reads of the records: results match the store, and many readers share one read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.api.view import View
from reconciler.core.model import Change, EnvironmentRecord
from reconciler.core.waits import Wait, WaitOn
from reconciler.store.reader import Reader
from reconciler.store.store import Store
from tests.fakes.fleet import builds, environment, fill, instance, name_of

OTHER = Wait(WaitOn.WAVE, "x")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    sqlite = request.param == "sqlite"
    store = Store(
        f"sqlite:///{tmp_path / 'records.db'}"
        if sqlite
        else request.getfixturevalue("postgresql_url")
    )
    fill(store, 9)
    yield store
    store.close()


def write(store: Store, change: Change) -> None:
    lease = store.acquire("test", 60)
    assert lease is not None
    store.write(lease, change)


def test_what_is_read_again_is_what_a_fresh_look_finds(store: Store) -> None:
    """After a change, a deletion and an addition; unchanged records are the very same objects."""
    reader = Reader(store)
    first = reader.load()
    assert first == store.load()
    assert reader.load() is first
    one = first.instances[name_of(0)]
    write(store, Change(instances=(replace(one, wait=OTHER),), drop_builds=(builds(1)[1].key,)))
    second = reader.load()
    assert second == store.load()
    assert second.instances[name_of(1)] is first.instances[name_of(1)]
    assert first.instances[name_of(0)].wait is None
    added = replace(environment(10), version=0)
    write(store, Change(environments=(added,), drop_instances=(name_of(2),)))
    third = reader.load()
    assert third == store.load()
    assert isinstance(third.environments[added.name], EnvironmentRecord)


def test_a_row_made_anew_with_its_old_version_is_seen_by_a_whole_look(store: Store) -> None:
    """A row is deleted and made again between two reads: same key and version, other content."""
    reader = Reader(store)
    reader.load()
    write(store, Change(drop_instances=(name_of(0),)))
    write(
        store,
        Change(instances=(replace(instance(0), wait=Wait(WaitOn.WAVE, "made anew"), version=0),)),
    )
    assert reader.load(whole=True).instances[name_of(0)].wait == Wait(WaitOn.WAVE, "made anew")
    assert reader.load() == store.load()


def test_many_askers_look_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second everybody gets the same result; after it, one reader reads again."""
    looks = 0
    load = Reader.load

    def counted(self: Reader, *, whole: bool = False) -> object:
        nonlocal looks
        looks += 1
        return load(self, whole=whole)

    monkeypatch.setattr(Reader, "load", counted)
    clock = [100.0]
    view = View(store, lambda: clock[0])
    shown = [view.now() for _ in range(50)]
    assert looks == 1
    assert all(s is shown[0] for s in shown)
    clock[0] += 1.0
    assert view.now() is shown[0]
    assert looks == 2
    write(store, Change(instances=(replace(shown[0].records.instances[name_of(0)], wait=OTHER),)))
    clock[0] += 1.0
    assert view.now().change == shown[0].change + 1
    assert view.now().instances[name_of(0)].waits_on == "x"
