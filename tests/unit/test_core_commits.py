"""The commit of a build or activation is the one that requested it."""

from __future__ import annotations

import json

import pytest

from metrics.facts import is_news
from reconciler.core.definitions import Commit
from reconciler.core.event_codec import data_of
from reconciler.core.events import Event
from reconciler.core.model import BuildRecord, InstanceRecord
from reconciler.core.phases import Step
from reconciler.store.codec import dump, parse
from tests.fakes.events import event as stored_event
from tests.fakes.simulated_world import House
from tests.unit.waves import ask_for, house_of, turn


def told(house: House, kind: str) -> list[tuple[str, object]]:
    """Return the revision and author of each event of a kind, oldest first."""
    return [(e.revision, data_of(e).get("author")) for e in house.events if e.kind == kind]


def cycle_until_activation_step(house: House, step: Step) -> None:
    """Carry out all effects until the house's activation has reached a step."""
    for _ in range(200):
        record = house.records.instances.get("dev")
        activation = record.activation if record is not None else None
        if activation is not None and activation.step is step:
            return
        turn(house, 1)
    pytest.fail(f"no activation reached {step}")


def test_two_commits_in_quick_succession_name_their_own_authors() -> None:
    """The second arrives while the first is being activated."""
    house = house_of("dev")
    cycle_until_activation_step(house, Step.RESTART)
    ask_for(house, "g2")
    house.settle()
    first, second = ("r1", "author of r1"), ("r2", "author of r2")
    assert told(house, "BuildReady") == [first, second]
    assert told(house, "ActivationStarted") == [first, second]
    assert told(house, "ActivationActive") == [first, second]


def test_two_commits_of_one_poll_name_their_own_authors() -> None:
    """The environment's commit came before the newest one, which touched something else."""
    house = house_of("dev")
    house.settle()
    house.commits = {"one": Commit("r2", "author of r2")}
    house.commit()
    ask_for(house, "g2")
    house.settle()
    assert house.revision == 3
    assert told(house, "ActivationActive")[1:] == [("r2", "author of r2")]
    assert house.records.environments["one"].commit.revision == "r2"
    assert house.records.repo.accepted_revision == "r3"


def test_a_revert_during_an_activation_is_the_reverting_commits() -> None:
    """The activation in progress keeps its own commit; the way back belongs to the revert."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    seen = len(house.events)
    while not [e for e in house.events[seen:] if e.kind == "ActivationStarted"]:
        turn(house, 1)
    cycle_until_activation_step(house, Step.RESTART)
    ask_for(house, "g1")
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert told(house, "ActivationActive") == [
        ("r1", "author of r1"),
        ("r2", "author of r2"),
        ("r3", "author of r3"),
    ]


def test_a_deletion_that_is_reverted_is_the_reverting_commits() -> None:
    """The environment is new to the daemon then, while its build is still known."""
    house = house_of("dev")
    house.settle()
    name, definition = house.environments.popitem()
    house.commit()
    cycle_until_activation_step(house, Step.RESTART)
    house.environments[name] = definition
    house.commit()
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    asked = [
        (e.revision, data_of(e)["trigger"]) for e in house.events if e.kind == "ActivationStarted"
    ]
    assert asked == [("r1", "commit"), ("r2", "deletion"), ("r3", "commit")]


def test_a_rollback_after_a_deletion_is_told() -> None:
    """Another rollback to the same build, for the same reason, is a separate fact."""

    def rolled_back(number: int, **data: object) -> Event:
        return stored_event(
            number, "RolledBack", "instance/dev", "red", "GateFailed", "", "r1", data, number
        )

    earlier = rolled_back(1, trigger="commit", **{"from": "b2", "to": "b1"})
    later = rolled_back(3, trigger="deletion", **{"from": "", "to": "b1"})
    started = stored_event(
        2, "ActivationStarted", "instance/dev", "red", "", "", "r1", data_of(later), 2
    )
    assert is_news(later, [started, earlier])
    assert not is_news(rolled_back(4, **data_of(later)), [later, started, earlier])


def test_records_of_an_earlier_version_have_no_commit_and_name_no_other() -> None:
    """They are read as before; no author is better than a wrong one."""
    house = house_of("dev")
    cycle_until_activation_step(house, Step.RESTART)
    build = next(iter(house.records.builds.values()))
    row = json.loads(dump(build))
    assert row.pop("commit")["author"] == "author of r1"
    old = parse(BuildRecord, json.dumps(row))
    assert (old.commit, old.revision) == (None, "r1")
    row = json.loads(dump(house.records.instances["dev"]))
    assert row["activation"].pop("commit")["author"] == "author of r1"
    record = parse(InstanceRecord, json.dumps(row))
    assert record.activation is not None
    assert record.activation.commit is None
    instances = house.records.instances
    assert isinstance(instances, dict)
    instances["dev"] = record
    ask_for(house, "g2")
    house.settle()
    assert told(house, "ActivationActive") == [("r1", None), ("r2", "author of r2")]
