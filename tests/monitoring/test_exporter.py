"""The exporter's metrics for given records and history, without a daemon."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from metrics.exporter import Exporter, Sandboxing, Space
from reconciler.core.definitions import Finding, Place, Wave
from reconciler.core.events import BuildReady, Event
from reconciler.core.model import Deployment, Problem, Records, Verb
from reconciler.core.reasons import Reason
from reconciler.core.waits import Wait, WaitOn
from reconciler.core.world import build_key
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


class History:
    """Events in memory, read in pages like those of the store."""

    def __init__(self, events: list[Event]) -> None:
        self.kept = [replace(event, id=number) for number, event in enumerate(events, start=1)]
        self.messages: dict[str, int] = {}

    def events(self, *, after_id: int = 0, limit: int = 1000) -> list[Event]:
        return self.kept[after_id : after_id + limit]

    def message_counts(self) -> dict[str, int]:
        return dict(self.messages)

    def late_messages(self) -> int:
        return self.messages.get("pending", 0)


def exporter(house: House, *, leads: bool = True) -> Exporter:
    """Return an exporter of a house's records and events."""
    return Exporter(
        History(house.events),
        lambda: house.records,
        leader=lambda: leads,
        store_bytes=lambda: 7.0,
        space=lambda: Space(1000.0, 400.0, 5.0),
        state_space=lambda: Space(50.0, 20.0, 5.0),
        sandbox=Sandboxing("auto", confined=True),
    )


def samples(found: Exporter) -> Samples:
    """Return values by metric and labels, as Prometheus reads them."""
    page = generate_latest(found.registry).decode()
    result: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            result.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return result


def labelled(found: Samples, name: str) -> list[dict[str, str]]:
    """Return the label sets of a metric whose value is not 0."""
    return [dict(labels) for labels, value in found.get(f"groundcrew_{name}", {}).items() if value]


@pytest.fixture
def house() -> House:
    """Return a house whose instance a of team red is active with environment one."""
    house = House()
    house.join(instance("a"))
    ask_for(house, "g1")
    return house


def ask_for(house: House, digest: str) -> None:
    """Commit another recipe, and run until all is settled."""
    house.environments["one"] = environment("one", digest, (Wave(("a",)),))
    house.commit()
    house.settle()


def problems(house: House) -> list[dict[str, str]]:
    return labelled(samples(exporter(house)), "object_problem")


def test_a_healthy_house_has_no_problem(house: House) -> None:
    """It is active and in sync, nothing waits, and nothing is wrong."""
    scraped = samples(exporter(house))
    (info,) = labelled(scraped, "instance_info")
    assert (info["sync_status"], info["health_status"]) == ("Synced", "Healthy")
    assert labelled(scraped, "instance_phase") == [
        {"instance": "a", "team": "red", "phase": "Active"}
    ]
    for name in ("object_problem", "instance_waiting", "quarantined_builds"):
        assert labelled(scraped, name) == []


def test_a_rollback_is_told_as_such(house: House) -> None:
    """Phase, source and quarantine show it; the instance itself does not look stalled."""
    ask_for(house, "l2")
    scraped = samples(exporter(house))
    (phase,) = labelled(scraped, "instance_phase")
    assert phase["phase"] == "RolledBack"
    assert labelled(scraped, "object_problem") == [
        {"object": "instance/a", "team": "red", "source": "rollback", "reason": "ComponentDown"}
    ]
    assert labelled(scraped, "quarantined_builds") == [{"instance": "a", "team": "red"}]
    ended = scraped["groundcrew_activation_total"]
    assert ended[("instance", "a"), ("result", "rolled_back")] == 1
    assert ended[("instance", "a"), ("result", "active")] == 1


def test_a_series_begins_at_zero(house: House) -> None:
    """The first rollback is seen as an increase, because there was a 0 before."""
    ended = samples(exporter(house))["groundcrew_activation_total"]
    assert ended[("instance", "a"), ("result", "rolled_back")] == 0


def test_a_failed_build_is_its_environments(house: House) -> None:
    """A build that does not resolve is a problem of the environment, not of its instance."""
    ask_for(house, "r2")
    (problem,) = problems(house)
    assert (problem["object"], problem["source"]) == ("environment/one", "build")


def test_a_build_that_is_tried_again_is_told_apart(house: House) -> None:
    """While the index is down the source is build-retry; once it is back nothing is wrong."""
    house.environments["one"] = environment("one", "g2", (Wave(("a",)),))
    house.commit()
    house.faults.add("build")
    for _ in range(4):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += 1
    house.cycle()
    (problem,) = problems(house)
    assert (problem["object"], problem["source"]) == ("environment/one", "build-retry")
    house.settle()
    assert problems(house) == []


def test_an_aborted_drain_is_the_activations(house: House) -> None:
    """Tasks never end: the activation was aborted, and nothing was switched."""
    house.records = replace(
        house.records,
        instances={
            "a": replace(
                house.records.instances["a"],
                current=Deployment("g0@cp311-linux-1"),
                wait=Wait(WaitOn.RETRY, "retry at 10:00 after: tasks still run"),
                problem=Problem(Reason.DRAIN_TIMEOUT, "tasks still run"),
                last=replace(
                    house.records.instances["a"].last,  # type: ignore[type-var]
                    problem=Problem(Reason.DRAIN_TIMEOUT, "tasks still run"),
                ),
            )
        },
    )
    (problem,) = problems(house)
    assert (problem["source"], problem["reason"]) == ("activation", "DrainTimeout")


def test_findings_go_to_the_team_whose_file_it_is(house: House) -> None:
    """A team's file belongs to the team, one below instances/ to nobody; the repo has its own."""
    house.records = replace(
        house.records,
        repo=replace(
            house.records.repo,
            findings=(
                Finding(
                    Place("teams/blue/x.yaml", 3), "Environment/x", Reason.WRONG_TYPE, "a list"
                ),
                Finding(Place("teams/blue/x.yaml", 9), "Environment/x", Reason.WRONG_TYPE, "again"),
                Finding(Place("instances/y.yaml", 1), "instances/y.yaml", Reason.INVALID_YAML, ""),
            ),
            source_problem=Problem(Reason.PRUNE_HELD, "all would go"),
        ),
    )
    reported = {(p["object"], p.get("team", ""), p["source"], p["reason"]) for p in problems(house)}
    assert reported == {
        ("environment/x", "blue", "definition", "WrongType"),
        ("instances/y.yaml", "", "definition", "InvalidYaml"),
        ("repo", "", "repo", "PruneHeld"),
    }


def test_what_an_activation_waits_on_is_one_of_a_few_words(house: House) -> None:
    """It is never the whole sentence, which contains names and numbers."""
    house.ask(Verb.SUSPEND, "instance/a")
    ask_for(house, "g2")
    waiting = labelled(samples(exporter(house)), "instance_waiting")
    assert waiting == [{"instance": "a", "team": "red", "on": "suspended"}]
    record = house.records.instances["a"]
    house.records = replace(
        house.records, instances={"a": replace(record, wait=Wait(None, "words of another version"))}
    )
    waiting = labelled(samples(exporter(house)), "instance_waiting")
    assert waiting == [{"instance": "a", "team": "red", "on": "other"}]


def test_a_standby_shows_itself_and_no_object(house: House) -> None:
    """Two replicas never report the same instance, and a standby's polls are no alert."""
    scraped = samples(exporter(house, leads=False))
    assert scraped["groundcrew_leader"][()] == 0
    assert "groundcrew_reconcile_duration_seconds_count" in scraped
    for name in scraped:
        assert not name.startswith(("groundcrew_instance", "groundcrew_source", "groundcrew_share"))


def test_series_of_deleted_objects_disappear(house: House) -> None:
    """An instance's gauges and counters end with its definition; a team's with its last object."""
    ask_for(house, "l2")
    house.environments["two"] = environment("two", "g9", (), "blue")
    daemon_exporter = exporter(house)
    assert 'instance="a"' in generate_latest(daemon_exporter.registry).decode()
    del house.environments["one"], house.instances["a"]
    house.environments["two"] = environment("two", "g9", (), "blue")
    house.ask(Verb.CONFIRM_PRUNE, "")
    house.commit()
    house.settle()
    assert not house.records.instances
    page = generate_latest(daemon_exporter.registry).decode()
    assert 'instance="a"' not in page
    assert 'team="red"' not in page


def test_messages_and_share_are_told(house: House) -> None:
    """Known results start at 0; waiting messages have a gauge of their own."""
    made = exporter(house)
    history = made._counters._history
    assert isinstance(history, History)
    history.messages = {"sent": 3, "pending": 2}
    scraped = samples(made)
    assert scraped["groundcrew_notification_total"] == {
        (("result", "failed"),): 0,
        (("result", "sent"),): 3,
        (("result", "skipped"),): 0,
    }
    assert scraped["groundcrew_notifications_pending"][()] == 2
    assert scraped["groundcrew_share_free_bytes"][()] == 400
    assert scraped["groundcrew_state_free_bytes"][()] == 20
    assert scraped["groundcrew_state_size_bytes"][()] == 50


def test_what_imports_cost_is_told_and_a_regression_until_the_next_build(house: House) -> None:
    """The figures are the newest build's; the ratio is 1 unless something clearly grew."""
    ratio, label = "groundcrew_import_regression_ratio", (("environment", "one"),)
    scraped = samples(exporter(house))
    assert scraped["groundcrew_import_files"] == {label: 100}
    assert scraped[ratio] == {label: 1}
    ask_for(house, "g4")
    scraped = samples(exporter(house))
    assert scraped["groundcrew_import_files"] == {label: 400}
    assert scraped["groundcrew_import_bytes"] == {label: 400 << 14}
    assert scraped["groundcrew_import_seconds"] == {label: 4.0}
    assert scraped[ratio] == {label: 4.0}
    ready = [e for e in house.events if e.kind == "BuildReady"][-1]
    assert isinstance(ready.payload, BuildReady)
    imports = replace(ready.payload.imports, growth={"files": 2.0})
    house.events.append(replace(ready, payload=replace(ready.payload, imports=imports)))
    assert samples(exporter(house))[ratio] == {label: 4.0}, "the same commit on another runtime"
    ask_for(house, "g3")
    assert samples(exporter(house))[ratio] == {label: 1}
    house.environments.clear()
    house.ask(Verb.CONFIRM_PRUNE, "")
    house.commit()
    house.settle()
    scraped = samples(exporter(house))
    assert not [name for name in scraped if name.startswith("groundcrew_import")]


# ------------------------------------------------------------------------------------- cardinality


def multiplied(house: House, count: int, teams: int) -> tuple[Records, list[Event]]:
    """Return records and events of `count` instances with the same history as instance a."""
    old, made = house.records.instances["a"], house.records.environments["one"]
    instances, environments, builds, events = {}, {}, {}, []
    for number in range(count):
        name, team, of = f"instance-{number}", f"team-{number % teams}", f"environment-{number}"
        digest = made.definition.recipe.digest
        instances[name] = replace(old, name=name, team=team, definition=instance(name, team))
        environments[of] = replace(
            made, name=of, team=team, definition=environment(of, digest, (Wave((name,)),), team)
        )
        for build in house.records.builds.values():
            key = build_key(of, build.recipe_digest, build.runtime_key)
            builds[key] = replace(build, key=key, environment=of, team=team)
        for event in house.events:
            kind = event.object.partition("/")[0]
            object_name = f"{kind}/{name if kind == 'instance' else of}"
            payload = event.payload
            if isinstance(payload, BuildReady):
                imports = replace(payload.imports, seconds=1.0, files=9, bytes=9)
                payload = replace(payload, imports=imports)
            events.append(replace(event, object=object_name, team=team, payload=payload))
    return replace(
        house.records, instances=instances, environments=environments, builds=builds
    ), events


def test_cardinality_at_a_thousand_instances_is_as_stated(house: House) -> None:
    """In the worst case each has its own environment, a rollback and a failed build."""
    ask_for(house, "l2")
    ask_for(house, "r3")
    house.records, house.events = multiplied(house, 1000, 50)
    scraped = samples(exporter(house))
    count = sum(len(series) for series in scraped.values())
    stated = re.search(r"([\d,]+) series at 1,000 instances", DOCS.read_text())
    assert stated is not None, "docs/metrics.md says how many"
    limit = int(stated.group(1).replace(",", ""))
    assert 0.9 * limit < count <= limit, count
    assert len(scraped["groundcrew_instance_info"]) == 1000
    assert len(labelled(scraped, "object_problem")) >= 1000


def test_the_page_of_metrics_names_every_metric(house: House) -> None:
    """docs/metrics.md and the exporter have the same metrics with the same labels."""
    ask_for(house, "l2")
    house.ask(Verb.SUSPEND, "instance/a")
    ask_for(house, "g3")
    page = generate_latest(exporter(house).registry).decode()
    made: dict[str, set[str] | None] = {}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        if name.startswith("groundcrew_"):
            made[name] = labels if family.samples else None
    told = {
        name: set(filter(None, (labels or "").split(",")))
        for name, labels in re.findall(
            r"^\| `(groundcrew_\w+)(?:\{([\w,]*)\})?` \|", DOCS.read_text(), re.MULTILINE
        )
    }
    assert sorted(made) == sorted(told)
    assert {n: labels for n, labels in made.items() if labels not in (None, told[n])} == {}
    assert sum(labels is not None for labels in made.values()) > 20
