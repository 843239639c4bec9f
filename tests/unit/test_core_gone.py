"""Missing or unreadable objects: deleted if that is intended, otherwise left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.definitions import Finding, Place, Wave
from reconciler.core.model import Verb
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from tests.fakes.definitions import environment
from tests.fakes.simulated_world import House
from tests.unit.waves import ask_for, house_of, turn


def test_a_deleted_environment_returns_its_instances_to_the_bare_base() -> None:
    """Deletion drains, switches to nothing, restarts and probes like any other activation."""
    house = house_of("dev")
    house.settle()
    house.environments.clear()
    house.commit()
    house.settle()
    assert house.airflow["dev"].running is None
    assert house.records.instances["dev"].current.build is None


def test_a_deleted_instance_is_kept_until_its_activation_has_ended() -> None:
    """Its removal is dated then: what its processes have loaded is collected only after a while."""
    house = house_of("dev", "other")
    house.settle()
    house.airflow["dev"].tasks.append("g1@cp311-linux-1")
    ask_for(house, "g2")
    turn(house)
    del house.instances["dev"]
    house.commit()
    committed = house.now
    house.cycle()
    assert house.records.instances["dev"].removed
    assert not house.records.repo.removals
    house.settle()
    assert set(house.records.instances) == {"other"}
    (removal,) = house.records.repo.removals
    assert removal[0] == "red"
    assert removal[1] > committed


def test_losing_most_definitions_changes_nothing_until_confirmed() -> None:
    """The prune guard holds a revision that removes most objects; a confirmation releases it."""
    house = house_of("a", "b", "c")
    house.settle()
    kept = dict(house.environments), dict(house.instances)
    house.environments.clear()
    house.instances.clear()
    house.commit()
    house.settle()
    assert house.records.repo.source_problem is not None
    assert house.records.repo.source_problem.reason == Reason.PRUNE_HELD
    assert set(house.records.instances) == {"a", "b", "c"}
    assert house.airflow["a"].running == "g1@cp311-linux-1"
    house.environments, house.instances = kept
    house.environments.clear()
    house.commit()
    house.ask(Verb.CONFIRM_PRUNE, "")
    house.settle()
    assert house.airflow["a"].running is None


def test_losing_all_environments_is_held_however_many_instances_there_are() -> None:
    """Many objects of one kind do not outweigh the loss of the other; one object may be removed."""
    house = house_of("a", "b", "c", "d", "e")
    house.environments["one"] = environment("one", "g1", (Wave(("a", "b", "c")),))
    house.environments["two"] = environment("two", "g1", (Wave(("d", "e")),))
    house.commit()
    house.settle()
    two = house.environments.pop("two")
    house.commit()
    house.settle()
    assert house.records.repo.source_problem is None
    house.environments["two"] = two
    house.commit()
    house.settle()
    house.environments.clear()
    house.commit()
    house.settle()
    assert house.records.repo.source_problem is not None
    assert house.records.repo.source_problem.reason == Reason.PRUNE_HELD
    assert house.airflow["a"].running == "g1@cp311-linux-1"


def test_a_confirmation_waits_until_something_is_read() -> None:
    """If requested while no daemon ran, the first cycle of the next has read nothing yet."""
    house = house_of("a")
    house.settle()
    house.crash()
    house.ask(Verb.CONFIRM_PRUNE, "")
    house.cycle()
    assert [request.verb for request in house.requests] == [Verb.CONFIRM_PRUNE]
    house.settle()
    assert house.requests == []
    assert house.events[-1].kind == "PruneConfirmed"
    assert house.records.repo.prune_confirmed == "r1"


def test_a_broken_file_keeps_what_was_accepted() -> None:
    """An object whose file is broken is Stalled and kept as it is, never treated as deleted."""
    house = house_of("dev")
    house.settle()
    location = Place("teams/red/one.yaml", 4, 7)
    house.findings = (Finding(location, "Environment/one", Reason.UNKNOWN_KEY, "no such key"),)
    house.commit()
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    shown = status(house.definitions(), house.records, house.now).environments[0]
    stalled = [c for c in shown.conditions if c.type == "Stalled"]
    assert [c.reason for c in stalled if c.status] == ["UnknownKey"]


def renamed_badly(house: House, name: str) -> None:
    """Rename the files of the environment and the instance in the next revision, with mistakes.

    `name` is the name in the mistakes: "one" and "dev", or nothing if no name can be read.
    """
    kinds = (("teams/red/new.yaml", "Environment/one"), ("instances/new.yaml", "Instance/dev"))
    house.findings = tuple(
        Finding(Place(file, 5, 3), known if name else file, Reason.UNKNOWN_KEY, "no such key")
        for file, known in kinds
    )
    del house.environments["one"], house.instances["dev"]
    house.commit()


@pytest.mark.parametrize("name", ["its name", ""], ids=["named", "of which no name can be read"])
def test_a_file_that_is_renamed_with_a_mistake_deletes_nothing(name: str) -> None:
    """Objects of a broken file are kept even if they were recorded from another file."""
    house = house_of("dev", "test", "prod")
    house.settle()
    kept = dict(house.environments), dict(house.instances)
    renamed_badly(house, name)
    house.settle()
    assert house.airflow["dev"].running == "g1@cp311-linux-1"
    assert not {"EnvironmentDeleted", "InstanceRemoved"} & {e.kind for e in house.events}
    (shown,) = status(house.definitions(), house.records, house.now).environments
    (stalled,) = [c for c in shown.conditions if c.type == "Stalled"]
    assert stalled.reason == Reason.UNKNOWN_KEY
    assert "teams/red/new.yaml:5:3" in stalled.message
    house.environments, house.instances = kept
    house.findings = ()
    house.environments["one"] = environment("one", "g2", house.environments["one"].rollout)
    house.commit()
    house.settle()
    assert house.airflow["dev"].running == "g2@cp311-linux-1"


def test_a_mistake_in_a_file_keeps_no_other_object_from_being_deleted() -> None:
    """An unreadable file that is known to contain one object does not stand for another one."""
    house = house_of("dev", "prod")
    house.environments["one"] = environment("one", "g1", (Wave(("dev",)),))
    house.environments["two"] = environment("two", "g2", (Wave(("prod",)),))
    house.commit()
    house.settle()
    del house.environments["one"]
    house.findings = (
        Finding(
            Place("teams/red/two.yaml", 3), "teams/red/two.yaml", Reason.INVALID_YAML, "no YAML"
        ),
        Finding(Place("teams/blue/x.yaml", 3), "teams/blue/x.yaml", Reason.INVALID_YAML, "no YAML"),
    )
    house.commit()
    house.settle()
    assert house.airflow["dev"].running is None
    assert house.airflow["prod"].running == "g2@cp311-linux-1"


# ------------------------------------------------------------------------------ unreadable files


def test_an_environment_that_cannot_be_read_leaves_its_instances_alone() -> None:
    """They are not moved to the bare base, and nothing is written in its place."""
    house = house_of("a", "b")
    turn(house)
    before = house.records
    assert before.instances["a"].current.build == "g1@cp311-linux-1"
    house.records = replace(before, environments={}, unreadable=frozenset({"environment/one"}))
    house.decider.forget()
    turn(house)
    now = house.records
    assert [i.current.build for i in now.instances.values()] == ["g1@cp311-linux-1"] * 2
    assert all(i.activation is None for i in now.instances.values())
    assert (now.environments, now.builds.keys()) == ({}, before.builds.keys())
    (finding,) = now.repo.findings
    assert (finding.object, finding.reason) == ("Environment/one", Reason.RECORD_UNREADABLE)
    house.records = replace(now, environments=before.environments, unreadable=frozenset())
    ask_for(house, "g2")
    turn(house)
    assert house.records.instances["a"].current.build == "g2@cp311-linux-1"
    assert house.records.repo.findings == ()


def test_an_instance_that_cannot_be_read_holds_only_those_behind_it() -> None:
    """Its environment continues elsewhere; it is neither added again nor skipped in its wave."""
    house = house_of("a", "b", "c")
    turn(house)
    before = house.records
    house.records = replace(
        before,
        instances={k: v for k, v in before.instances.items() if k != "b"},
        unreadable=frozenset({"instance/b"}),
    )
    ask_for(house, "g2")
    turn(house)
    now = house.records
    assert now.instances.keys() == {"a", "c"}
    assert now.instances["a"].current.build == "g2@cp311-linux-1"
    wait = now.instances["c"].wait
    assert wait is not None
    assert "wave 2: b has no healthy build" in wait.message
    assert [f.object for f in now.repo.findings] == ["Instance/b"]
