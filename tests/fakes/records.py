"""Records and events that tests of the store write."""

from __future__ import annotations

from reconciler.core.definitions import Commit, Wave
from reconciler.core.model import EnvironmentRecord, Event
from tests.fakes.definitions import environment


def record(name: str = "one") -> EnvironmentRecord:
    definition = environment(name, "g1", (Wave(("a",)),))
    return EnvironmentRecord(name, "red", definition, Commit("r1"))


def happened(kind: str, target: str = "instance/a") -> Event:
    return Event(1.0, kind, target, "red", kind, "words", "r1", {"seconds": 1.5})
