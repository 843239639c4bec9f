"""Decisions about what is found on the share and in processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.core.definitions import Wave
from reconciler.core.drift import (
    Deviation,
    Sight,
    lost,
    record_healing,
    record_share,
    record_sights,
)
from reconciler.core.event_codec import data_of
from reconciler.core.loaded import Loaded
from reconciler.core.model import DriftKind, InstanceRecord, Problem
from reconciler.core.phases import BuildPhase, Health, Sync
from reconciler.core.reasons import Reason
from reconciler.core.status import InstanceStatus
from reconciler.core.statuses import status
from reconciler.core.world import Draft
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

POINTER = Deviation(DriftKind.POINTER, "the pointer is gone; it named build x")
LOADER = Deviation(DriftKind.LOADER, "the loader is not the one that was installed: x.py")
AWAY = Problem(Reason.SHARE_MISSING, "the marker is missing")


@pytest.fixture
def house() -> House:
    """One environment that is active on one instance."""
    house = House()
    house.join(instance("dev"))
    house.environments["one"] = environment("one", "g1", (Wave(("dev",)),))
    house.commit()
    house.settle()
    house.events.clear()
    assert of(house).current.build is not None
    return house


def of(house: House) -> InstanceRecord:
    return house.records.instances["dev"]


def take(house: House, apply: Callable[[Draft], None]) -> None:
    """Take a report into the records."""
    draft = Draft(house.world())
    apply(draft)
    house._store(draft.plan().change)


def see(
    house: House,
    *deviations: Deviation,
    loaded: tuple[Loaded, ...] | None = None,
    version: int | None = None,
) -> None:
    """Take a look at the instance into the records."""
    sight = Sight(of(house).version if version is None else version, deviations, loaded)
    take(house, lambda draft: record_sights(draft, {"dev": sight}))


def effects(house: House) -> set[str]:
    """Return the kinds of effects that the next cycle wants for the instance."""
    return {e.kind for e in house.cycle().effects if e.key == "dev"}


def kinds(house: House) -> list[str]:
    return [event.kind for event in house.events]


def shown(house: House) -> InstanceStatus:
    (shown_status,) = status(None, house.records, house.now).instances
    return shown_status


def process(build: str | None, **changes: bool) -> Loaded:
    return Loaded("scheduler", "pid 7", build, **changes)  # type: ignore[arg-type]


def test_what_drifted_is_told_once_and_healed(house: House) -> None:
    """The same look again says nothing new, and a healed instance is as it was."""
    before = of(house)
    for _ in range(2):
        see(house, POINTER, LOADER)
    assert kinds(house) == ["Drifted"]
    assert data_of(house.events[0])["kinds"] == ["loader", "pointer"]
    assert shown(house).health is Health.PROGRESSING
    assert "heal" in effects(house)
    take(house, lambda draft: record_healing(draft, "dev", "written again", None))
    assert kinds(house) == ["Drifted", "DriftHealed"]
    assert "heal" not in effects(house)
    assert (of(house).drift, of(house).current.build) == (None, before.current.build)
    assert shown(house).health is Health.HEALTHY


def test_what_cannot_be_healed_is_tried_again_later_and_told_once(house: House) -> None:
    """With growing pauses; until then the instance says so."""
    see(house, POINTER)
    problem = Problem(Reason.SHARE_UNWRITABLE, "read-only")
    waits = []
    for _ in range(3):
        take(house, lambda draft: record_healing(draft, "dev", "", problem))
        drift = of(house).drift
        assert drift is not None
        waits.append(drift.not_before - house.now)
        assert "heal" not in effects(house)
        house.now = drift.not_before
        assert "heal" in effects(house)
    assert waits == sorted(set(waits))
    assert kinds(house) == ["Drifted", "DriftStays"]
    current_status = shown(house)
    assert current_status.health is Health.MISSING
    conditions = {c.type: c for c in current_status.conditions}
    ready, stalled = conditions["Ready"], conditions["Stalled"]
    assert (ready.status, stalled.status, stalled.reason) == (False, True, Reason.DRIFTED)


def test_a_look_that_an_activation_has_overtaken_says_nothing(house: House) -> None:
    """It compared the share with a record that is another one now."""
    see(house, POINTER, version=of(house).version - 1)
    assert kinds(house) == []
    house.environments["one"] = environment("one", "g2", (Wave(("dev",)),))
    house.commit()
    while of(house).activation is None:
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
    see(house, POINTER, loaded=(process(None),))
    assert "Drifted" not in kinds(house)
    assert "heal" not in effects(house)
    house.settle()
    assert of(house).drift is None


def test_drift_that_goes_by_itself_is_forgotten(house: House) -> None:
    see(house, POINTER)
    see(house)
    assert of(house).drift is None
    assert kinds(house) == ["Drifted"]


def test_a_lost_build_is_queued_again_and_no_pointer_is_written(house: House) -> None:
    """The core makes it again; what is healed by writing is something else."""
    current = of(house).current.build
    assert current is not None
    kept = house.complete.pop(current)
    assert "heal" not in effects(house)
    assert kinds(house) == ["Drifted"]
    house.take_reports()
    see(house, lost(current))
    assert kinds(house) == ["Drifted"], "a look says it once more"
    (build,) = house.records.builds.values()
    assert build.phase is not BuildPhase.READY
    assert shown(house).health is Health.MISSING
    house.settle()
    assert house.complete[current] == kept
    assert of(house).current.build == current
    assert of(house).drift is None
    assert kinds(house)[-1] == "DriftHealed"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (process(None), "LoaderFellBack"),
        (process("another"), "OtherBuildLoaded"),
    ],
)
def test_components_that_load_something_else_are_started_anew(
    house: House, found: Loaded, reason: str
) -> None:
    """Told with the words; an activation to the recorded build restarts them."""
    current = of(house).current.build
    see(house, loaded=(found, process(current, local=True)))
    assert [(e.kind, e.reason) for e in house.events] == [("BuildNotLoaded", reason)]
    assert (of(house).processes.count, of(house).processes.local) == (2, 1)
    assert shown(house).sync is Sync.OUT_OF_SYNC
    house.settle()
    assert kinds(house)[-1] == "ActivationActive"
    see(house, loaded=(process(current), process(current, local=True)))
    assert kinds(house)[-1] == "BuildLoaded"
    assert of(house).current.build == current
    assert shown(house).health is Health.HEALTHY


def test_a_component_without_the_loader_is_told_and_left_alone(house: House) -> None:
    """A restart would change nothing."""
    see(house, loaded=(process(None, proven=False),))
    assert [(e.kind, e.reason) for e in house.events] == [("BuildNotLoaded", "LoaderMissing")]
    assert of(house).processes.count == 0
    assert "perform" not in effects(house)
    assert shown(house).health is Health.MISSING


def test_a_pinned_component_is_as_somebody_wanted_it(house: House) -> None:
    see(house, loaded=(process("another", pinned=True),))
    assert kinds(house) == []
    assert shown(house).health is Health.HEALTHY


def test_without_the_share_nothing_begins_and_nothing_is_lost(house: House) -> None:
    """No build, no activation, no healing; and all goes on when it is back."""
    see(house, POINTER)
    house.environments["one"] = environment("one", "g2", (Wave(("dev",)),))
    house.commit()
    take(house, lambda draft: record_share(draft, AWAY))
    house.complete.clear()  # so it looks
    assert house.cycle().effects == ()
    assert status(None, house.records, house.now).problem == AWAY
    assert [b.phase for b in house.records.builds.values() if b.recipe_digest == "g1"] == [
        BuildPhase.READY
    ]
    take(house, lambda draft: record_share(draft, AWAY))
    take(house, lambda draft: record_share(draft, None))
    assert [k for k in kinds(house) if k.startswith("Share")] == ["ShareMissing", "ShareBack"]
    assert house.cycle().effects != ()
