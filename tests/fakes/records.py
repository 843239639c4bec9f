"""Records and events that tests of the store write."""

from __future__ import annotations

from reconciler.core.definitions import Commit, Wave
from reconciler.core.events import Event
from reconciler.core.model import EnvironmentRecord
from tests.fakes.definitions import environment
from tests.fakes.events import event as stored_event


def record(name: str = "one") -> EnvironmentRecord:
    definition = environment(name, "g1", (Wave(("a",)),))
    return EnvironmentRecord(name, "red", definition, Commit("r1"))


def happened(kind: str, target: str = "instance/a") -> Event:
    return stored_event(1.0, kind, target, "red", kind, "words", "r1", {"seconds": 1.5})
