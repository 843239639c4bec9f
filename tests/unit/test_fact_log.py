"""The daemon's log: one line for each recorded fact."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from metrics.redaction import Scrubber
from reconciler.cli.run import JsonLines, TextLines
from reconciler.core.events import Event
from reconciler.daemon import fact_log
from tests.fakes.events import event as stored_event
from tests.unit.waves import house_of

SECRET = "hunter2-hunter2"


@contextmanager
def captured(formatter: logging.Formatter) -> Iterator[StringIO]:
    """Collect the output of the fact log."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    level = fact_log.log.level
    fact_log.log.addHandler(handler)
    fact_log.log.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        fact_log.log.removeHandler(handler)
        fact_log.log.setLevel(level)


def scrubber(folder: Path) -> Scrubber:
    (folder / "red").mkdir()
    (folder / "red" / "token").write_text(SECRET)
    return Scrubber(folder)


def failure() -> Event:
    return stored_event(
        1.0,
        "BuildFailed",
        "environment/one",
        "red",
        "ResolutionFailed",
        f"https://{SECRET}@index\nERROR forged line",
        "0123456789abcdef",
        {"key": "a" * 16, "author": f"A {SECRET}", "seconds": 2.25},
    )


def test_a_fact_is_one_line_of_text_without_secrets(tmp_path: Path) -> None:
    """A line break in a message does not start a new line."""
    with captured(TextLines()) as stream:
        fact_log.log_facts([failure()], scrubber(tmp_path).clean)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(
        " INFO reconciler.daemon.fact_log: BuildFailed environment/one reason=ResolutionFailed "
        "commit=0123456789 seconds=2.2: https://***@index ERROR forged line"
    )


def test_a_fact_has_its_fields_in_json(tmp_path: Path) -> None:
    """Log collectors can select by object, build and commit."""
    with captured(JsonLines()) as stream:
        fact_log.log_facts([failure()], scrubber(tmp_path).clean)
    (line,) = stream.getvalue().splitlines()
    assert SECRET not in line
    assert json.loads(line)["fact"] == {
        "kind": "BuildFailed",
        "object": "environment/one",
        "team": "red",
        "reason": "ResolutionFailed",
        "build_key": "a" * 16,
        "commit": "0123456789abcdef",
        "author": "A ***",
        "seconds": 2.25,
        "message": "https://***@index ERROR forged line",
    }


def test_a_build_and_an_activation_are_logged_with_build_commit_and_duration() -> None:
    """Phases are not logged, because they would be most of the log."""
    house = house_of("dev")
    house.settle()
    with captured(JsonLines()) as stream:
        fact_log.log_facts(house.events, str)
    facts = [json.loads(line)["fact"] for line in stream.getvalue().splitlines()]
    kinds = [fact["kind"] for fact in facts]
    assert {"ActivationPhase", "BuildQueued"} <= {event.kind for event in house.events}
    assert not {"ActivationPhase", "BuildQueued"} & set(kinds)
    for kind in ("BuildReady", "ActivationActive"):
        (fact,) = [fact for fact in facts if fact["kind"] == kind]
        assert (fact["build"], fact["commit"]) == ("g1@cp311-linux-1", "r1")
        assert fact["seconds"] > 0
