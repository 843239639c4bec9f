"""Kinds of events: their payloads in JSON, and who is told of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace

import pytest

from metrics.commits import status_of
from metrics.event_counters import EventCounters
from metrics.facts import Links, make_fact
from metrics.messages import digest, message
from metrics.notices import NOTICES
from reconciler.core.event_codec import data_of, decoded, encoded, reason_of
from reconciler.core.events import (
    ActivationAborted,
    ActivationActive,
    ActivationStarted,
    BuildReady,
    Drifted,
    Event,
    EventKind,
    FromTo,
    PhaseEnded,
    Timing,
    UnknownKind,
    part_of,
    seconds_of,
    who_of,
)
from reconciler.core.phases import Trigger
from reconciler.core.reasons import Reason
from reconciler.daemon.fact_log import log, log_facts
from tests.fakes.events import event as stored_event

SHA = "0123456789abcdef0123456789abcdef01234567"
MESSAGE, STATUS, COUNTER, LOG = "message", "status", "counter", "log"

TOLD: Mapping[EventKind, set[str]] = {
    EventKind.SOURCE_CHANGED: {STATUS, LOG},
    EventKind.SOURCE_FAILED: {MESSAGE, LOG},
    EventKind.SOURCE_RECOVERED: {MESSAGE, LOG},
    EventKind.PRUNE_HELD: {MESSAGE, STATUS, LOG},
    EventKind.PRUNE_CONFIRMED: {LOG},
    EventKind.OBJECT_STALLED: {MESSAGE, STATUS, LOG},
    EventKind.OBJECT_RECOVERED: {LOG},
    EventKind.INSTANCE_ADDED: {LOG},
    EventKind.INSTANCE_REMOVED: {LOG},
    EventKind.ENVIRONMENT_ACCEPTED: {LOG},
    EventKind.ENVIRONMENT_DELETED: {LOG},
    EventKind.RUNTIME_CHANGED: {LOG},
    EventKind.BUILD_QUEUED: {STATUS},
    EventKind.BUILD_READY: {STATUS, COUNTER, LOG},
    EventKind.BUILD_FAILED: {MESSAGE, STATUS, COUNTER, LOG},
    EventKind.BUILD_RETRY: {LOG},
    EventKind.DAGS_PARSED: {LOG},
    EventKind.DAGS_NOT_SEEN: {LOG},
    EventKind.BUILD_CANCELLED: {COUNTER, LOG},
    EventKind.ACTIVATION_STARTED: {MESSAGE, STATUS, LOG},
    EventKind.RESTARTS_LIMITED: {LOG},
    EventKind.ACTIVATION_PHASE: {COUNTER},
    EventKind.ACTIVATION_ACTIVE: {MESSAGE, STATUS, COUNTER, LOG},
    EventKind.ACTIVATION_ABORTED: {MESSAGE, STATUS, COUNTER, LOG},
    EventKind.ROLLED_BACK: {MESSAGE, STATUS, COUNTER, LOG},
    EventKind.QUARANTINED: {LOG},
    EventKind.DEGRADED: {MESSAGE, STATUS, COUNTER, LOG},
    EventKind.SUSPENDED: {LOG},
    EventKind.RESUMED: {LOG},
    EventKind.RETRY_REQUESTED: {LOG},
    EventKind.REFRESH_REQUESTED: {LOG},
    EventKind.ROLLBACK_REQUESTED: {COUNTER, LOG},
    EventKind.ACTIVATE_REQUESTED: {LOG},
    EventKind.ABORT_REQUESTED: {LOG},
    EventKind.ROLLBACK_REFUSED: {LOG},
    EventKind.REQUEST_REFUSED: {LOG},
    EventKind.SHARE_MISSING: {MESSAGE, LOG},
    EventKind.SHARE_BACK: {MESSAGE, LOG},
    EventKind.DRIFTED: {MESSAGE, COUNTER, LOG},
    EventKind.DRIFT_HEALED: {MESSAGE, LOG},
    EventKind.DRIFT_STAYS: {MESSAGE, LOG},
    EventKind.BUILD_NOT_LOADED: {MESSAGE, LOG},
    EventKind.BUILD_LOADED: {LOG},
    EventKind.GARBAGE_COLLECTED: {LOG},
    EventKind.GARBAGE_FAILED: {LOG},
}
"""Readers of each kind, beside the history itself. A new kind gets its row here."""


def event(kind: EventKind) -> Event:
    """Return an event of a kind about an instance, with a payload that says something."""
    payload = {
        EventKind.ACTIVATION_STARTED: ActivationStarted(FromTo("one", "two")),
        EventKind.ACTIVATION_ACTIVE: ActivationActive(FromTo("one", "two")),
        EventKind.ACTIVATION_PHASE: PhaseEnded("Draining", 1.0),
        EventKind.DRIFTED: Drifted(("pointer",)),
    }.get(kind, kind.payload())
    return Event(1.0, kind, "instance/a", "red", None, "a message", SHA, payload, 1)


def counted(events: list[Event]) -> list[str]:
    """Return the metrics after some events."""

    class History:
        def events(self, *, after_id: int = 0, limit: int = 1000) -> list[Event]:
            return [one for one in events if one.id > after_id][:limit]

        def message_counts(self) -> dict[str, int]:
            return {}

        def late_messages(self) -> int:
            return 0

    counters = EventCounters(History())
    counters.read()
    return [repr(metric) for metric in counters.collect(["red"], ["a"], ["a"])]


def test_each_kind_has_a_row() -> None:
    """Whoever adds a kind says here who is told of it."""
    assert TOLD.keys() == set(EventKind)


@pytest.mark.parametrize("kind", EventKind)
def test_who_is_told(kind: EventKind, caplog: pytest.LogCaptureFixture) -> None:
    """Messages, commit statuses, counters and the log tell just the kinds that the table says."""
    one = event(kind)
    with caplog.at_level(logging.INFO, log.name):
        log_facts([one], lambda text: text)
    told = {
        MESSAGE: make_fact(one, Links()) is not None,
        STATUS: status_of(one, "groundcrew") is not None,
        COUNTER: counted([one]) != counted([]),
        LOG: kind in caplog.text,
    }
    assert {reader for reader, is_told in told.items() if is_told} == TOLD[kind]


@pytest.mark.parametrize("kind", NOTICES)
def test_each_fact_can_be_sent_to_slack(kind: EventKind) -> None:
    """Alone and in a digest."""
    fact = make_fact(event(kind), Links())
    assert fact is not None
    assert fact.title in message(fact)["text"]
    assert "2 changes" in digest([fact, fact])["text"]


def test_an_event_of_a_newer_version_is_only_shown() -> None:
    """It keeps its name, its reason and its data; nobody is told of it, and nothing is counted."""
    data = {"seconds": 3.0, "who": "someone", "new": [1, {"a": None}]}
    one = stored_event(1.0, "MoonLanded", "instance/a", "red", "Tides", "message", SHA, data, 1)
    assert isinstance(one.kind, UnknownKind)
    assert (str(one.kind), one.reason_name, data_of(one)) == ("MoonLanded", "Tides", data)
    assert make_fact(one, Links()) is None
    assert status_of(one, "groundcrew") is None
    assert counted([one]) == counted([])


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("wrong", [None, True, 7, "text", ["text", 3], [["a"]], {"a": "b"}])
def test_data_of_other_versions_is_read(kind: EventKind, wrong: object) -> None:
    """Missing, unknown and mistyped keys are no errors, and are shown as they were written."""
    keys = encoded(kind.payload()).keys() | {"import_before", "author", "phases", "more"}
    data = dict.fromkeys(keys, wrong)
    one = stored_event(1.0, kind, "instance/a", "red", kind, "a message", SHA, data, 1)
    assert type(one.payload) is kind.payload
    assert data_of(one) == data
    assert decoded(kind, {}) == decoded(kind, {"more": 1})
    make_fact(one, Links())
    status_of(one, "groundcrew")
    counted([one])
    assert json.loads(json.dumps(encoded(one.payload))) is not None


def test_a_payload_is_read_back() -> None:
    """As is its part of an unknown trigger, which nobody takes for a commit's."""
    whole = stored_event(
        1.0,
        "ActivationAborted",
        "instance/a",
        "red",
        "DrainTimeout",
        "a message",
        SHA,
        {"seconds": 2.0, "phases": {"Draining": 2.0}, "trigger": "operator", "who": "someone"},
    )
    assert isinstance(whole.payload, ActivationAborted)
    assert whole.payload.timing == Timing(2.0, {"Draining": 2.0})
    assert whole.payload.ref.trigger is Trigger.OPERATOR
    assert (seconds_of(whole.payload), who_of(whole.payload)) == (2.0, "someone")
    assert part_of(whole.payload, FromTo) is None
    assert decoded(EventKind.ACTIVATION_ABORTED, encoded(whole.payload)) == whole.payload
    other = replace(whole, payload=decoded(EventKind.ACTIVATION_ABORTED, {"trigger": "moon"}))
    assert status_of(whole, "groundcrew") is None
    assert status_of(other, "groundcrew") is None


def test_a_payload_without_a_figure_says_so() -> None:
    """A measure without a figure is null; a key that does not apply is left out."""
    data = encoded(BuildReady())
    assert data["import_files"] is None
    assert data["import_before"] is None
    assert "author" not in data


def test_a_reason_that_only_repeats_the_kind_is_none() -> None:
    """It is stored as the kind; all others are kept, also those of other versions."""
    assert reason_of(EventKind.DRIFTED, "Drifted") is None
    assert event(EventKind.DRIFTED).reason_name == "Drifted"
    assert reason_of(EventKind.ROLLED_BACK, "GateFailed") is Reason.GATE_FAILED
    assert reason_of(EventKind.ROLLED_BACK, "Tides") == "Tides"
