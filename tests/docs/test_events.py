"""Page docs/events.md compared with the code: its kinds, and the keys of their data."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.core.accept import source_failed, source_recovered
from reconciler.core.definitions import Finding, Wave
from reconciler.core.event_codec import data_of, keys_of
from reconciler.core.events import KNOWN, EventKind
from reconciler.core.model import Problem, Verb
from reconciler.core.reasons import Reason
from reconciler.core.world import Draft
from scripts.docs import events
from tests.docs.blocks import ROOT
from tests.fakes.airflow import Airflow
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House


def recorded() -> set[EventKind]:
    """Return the kinds of events that the code records: those named in modules that do."""
    names: set[str] = set()
    for path in sorted((ROOT / "reconciler").rglob("*.py")):
        text = path.read_text()
        if "draft.event(" in text:
            names.update(re.findall(r"EventKind\.([A-Z_]+)", text))
    return {EventKind[name] for name in names}


def test_every_kind_of_event_is_told() -> None:
    """Each kind is recorded somewhere and has a text; so has each key."""
    assert recorded() == set(EventKind)
    assert all(kind.means for kind in EventKind)
    used = {key for kind in EventKind for key in keys_of(kind.payload)}
    assert used == set(events.DATA)


def history() -> House:
    """Return a house in which everything has happened that the core reports."""
    house = House()
    house.instances["a"], house.airflow["a"] = instance("a"), Airflow()
    for serial, kind in enumerate("ggrvlg"):
        ask_for(house, f"{kind}{serial}")
        house.settle()
    asked = (Verb.SUSPEND, "instance/a"), (Verb.RESUME, "instance/a"), (Verb.ROLLBACK, "instance/a")
    again = (Verb.ROLLBACK, "instance/a"), (Verb.RETRY, "instance/gone")
    for verb, target in (
        *asked,
        *again,
        (Verb.RETRY, "instance/a"),
        (Verb.REFRESH, "environment/one"),
    ):
        house.ask(verb, target)
        house.settle()
    operated(house)
    trouble(house)
    source(house)
    house.environments.clear()
    house.instances.clear()
    house.commit()
    house.settle()
    house.ask(Verb.CONFIRM_PRUNE, "")
    house.settle()
    return house


def ask_for(house: House, digest: str) -> None:
    house.environments["one"] = environment("one", digest, (Wave(("a",)),))
    house.commit()


def turn(house: House, times: int = 40, seconds: float = 1.0) -> None:
    """Continue, whatever fails."""
    for _ in range(times):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += seconds


def operated(house: House) -> None:
    """Begin an activation on request, and abort it."""
    house.ask(Verb.SUSPEND, "instance/a")
    ask_for(house, "g20")
    house.settle()
    house.ask(Verb.RESUME, "instance/a")
    house.ask(Verb.ACTIVATE, "instance/a")
    house.cycle()
    house.ask(Verb.ABORT, "instance/a")
    house.settle()


def trouble(house: House) -> None:
    """Cause a superseded build, an unavailable index, endless tasks, and no way back."""
    ask_for(house, "g6")
    house.faults.add("build")
    turn(house, 4)
    ask_for(house, "g7")
    house.settle()
    ask_for(house, "g8")
    house.airflow["a"].tasks.append("g7@cp311-linux-1")
    turn(house, seconds=61.0)
    house.settle()
    ask_for(house, "g9")
    house.faults.add("restart")
    turn(house)
    house.settle()


def source(house: House) -> None:
    """Make the repo unavailable and available again, with a mistake that is corrected."""
    for what in (lambda d: source_failed(d, Problem(Reason.SOURCE_DENIED, "no")), source_recovered):
        draft = Draft(house.world())
        what(draft)
        house._store(draft.plan().change)
    location = house.environments["one"].place
    house.findings = (Finding(location, "Environment/one", Reason.WRONG_TYPE, "a list"),)
    house.commit()
    house.settle()
    house.findings = ()
    house.commit()
    house.settle()


def test_the_data_of_events_is_told() -> None:
    """Every kind that the core records happens, and its data has the keys of the page."""
    seen: dict[str, set[str]] = {}
    share = list(EventKind)[list(EventKind).index(EventKind.SHARE_MISSING) :]
    for event in history().events:
        seen.setdefault(event.kind, set()).update(data_of(event))
    assert seen.keys() == set(EventKind) - set(share)
    for kind, keys in seen.items():
        assert keys == set(keys_of(KNOWN[kind].payload)), kind


def test_the_kinds_in_texts_are_kinds() -> None:
    """Messages and other pages name no kind that is not recorded."""
    text = Path(ROOT / "docs" / "api.md").read_text()
    named = set(
        re.findall(r"`([A-Z][a-z]+(?:Requested|Refused|Confirmed)|Suspended|Resumed)`", text)
    )
    assert named
    assert named <= set(EventKind)
