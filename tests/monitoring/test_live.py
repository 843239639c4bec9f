"""A real daemon, a Prometheus that scrapes it, and an Alertmanager that notifies.

Tests run in the order of this file: an alert that fires must clear before the last ones.
"""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.local_daemon import ENVIRONMENT, INSTANCE, TEAM
from tests.harness.monitoring import NAMESPACE, until
from tests.monitoring.conftest import SECOND, Scene, commit

pytestmark = pytest.mark.slow  # the scene needs more than a minute
GRAFANA = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
LOOKED_BACK, STEP = 600, 2  # seconds of a graph
CHOICES = {
    "$job": "groundcrew",
    "$namespace": NAMESPACE,
    "$team": ".*",
    "$environment": ENVIRONMENT,
    "$__rate_interval": "5m",
    "$__interval": f"{STEP}s",
    "$target": "900",
    "$__range": "1h",
}


def expressions() -> list[tuple[str, str, bool]]:
    """Return (dashboard/panel/legend, expression, instant) of all queries and annotations."""
    queries = []
    for path in sorted(GRAFANA.glob("*.json")):
        document = json.loads(path.read_text())
        marks = document["annotations"].get("list") or []
        queries += [(f"{path.stem}/{mark['name']}", mark["expr"], False) for mark in marks]
        for panel in document["panels"]:
            for target in panel.get("targets", []):
                name = f"{path.stem}/{panel['title']}/{target['refId']}"
                queries.append((name, target["expr"], bool(target.get("instant"))))
    return queries


QUERIES = expressions()


def has_data(scene: Scene, expression: str, *, instant: bool) -> bool:
    """Return True if the expression has a number for one of the existing instances."""
    for instance in (INSTANCE, SECOND):
        asked = expression.replace("$instance", instance)
        for name, value in CHOICES.items():
            asked = asked.replace(name, value)
        assert "$" not in asked, f"a variable that nobody sets: {asked}"
        time_series: list[dict[str, Any]]
        if instant:
            time_series = scene.watch.query(asked)
            values = [series["value"][1] for series in time_series]
        else:
            time_series = scene.watch.query_range(asked, LOOKED_BACK, STEP)
            values = [point[1] for series in time_series for point in series["values"]]
        if any(math.isfinite(float(value)) for value in values):
            return True
    return False


def test_an_alert_goes_all_the_way_to_its_team(scene: Scene) -> None:
    """The team's receiver alone gets the rollback, with text and the runbook's link."""
    name = "GroundcrewActivationRolledBack"
    (alert, *_) = until(
        lambda: scene.watch.sink.alerts(f"/{TEAM}", name, "firing"), "the alert is told"
    )
    assert alert["labels"]["team"] == TEAM
    assert alert["labels"]["instance"] == INSTANCE
    assert alert["labels"]["severity"] == "warning"
    assert INSTANCE in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    assert scene.watch.sink.alerts("/platform", name, "firing") == []


@pytest.mark.parametrize(("name", "expression", "instant"), QUERIES, ids=[q[0] for q in QUERIES])
def test_every_panel_has_data(failed: Scene, name: str, expression: str, *, instant: bool) -> None:
    """No panel asks for a metric, a label or a value that does not exist."""
    until(lambda: has_data(failed, expression, instant=instant), f"{name} has data: {expression}")


def test_every_choice_of_a_dashboard_has_values(failed: Scene) -> None:
    """`label_values(selector, label)` finds something for each variable."""
    seen = 0
    for path in GRAFANA.glob("*.json"):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] != "query":
                continue
            inner = variable["query"].removeprefix("label_values(").removesuffix(")")
            selector, _, label = inner.rpartition(", ")
            for choice, value in {**CHOICES, "$instance": INSTANCE}.items():
                selector = selector.replace(choice, value)
            series = failed.watch.query(f"count by ({label}) ({selector})")
            assert [s["metric"][label] for s in series if s["metric"].get(label)], variable["name"]
            seen += 1
    assert seen >= 5


def test_every_rule_is_evaluated_without_an_error(failed: Scene) -> None:
    """Prometheus reports each rule as healthy; every recording rule has series."""
    document = httpx.get(f"{failed.watch.url}/api/v1/rules", timeout=20).json()
    rules = [rule for group in document["data"]["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [
        (r["name"], r.get("lastError")) for r in rules if r["health"] != "ok"
    ]
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert [name for name in recorded if not failed.watch.query(name)] == []


def test_promtool_has_nothing_against_the_metrics(failed: Scene) -> None:
    """`promtool check metrics` accepts the full page of a daemon without any message."""
    page = httpx.get(f"http://{failed.target}/metrics", timeout=20).text
    assert "groundcrew_rollback_total{" in page
    assert "process_cpu_seconds_total " in page
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=page,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_alert_clears_all_the_way(failed: Scene) -> None:
    """A good commit is activated: the team is told that it is over."""
    commit(failed.site, "1.2")
    name = "GroundcrewActivationRolledBack"
    until(lambda: failed.watch.sink.alerts(f"/{TEAM}", name, "resolved"), "the end is told")
    until(
        lambda: failed.watch.sink.alerts(f"/{TEAM}", "GroundcrewBuildFailing", "resolved"),
        "the end of the failed build is told",
    )


def test_series_of_a_deleted_instance_disappear(failed: Scene) -> None:
    """New samples, including counters, lack objects that are no longer defined."""
    (failed.site.repo / "instances" / f"{SECOND}.yaml").unlink()
    rollout: dict[str, Any] = {"rollout": [{"instances": [INSTANCE]}]}
    failed.site.commit("1.3", **rollout)
    series = f'{{__name__=~"groundcrew_.*", instance="{SECOND}"}}'
    assert failed.watch.query_range(series, LOOKED_BACK, STEP), "there were some"
    until(lambda: not failed.watch.query(series), "they are gone")
    page = httpx.get(f"http://{failed.target}/metrics", timeout=20).text
    assert SECOND not in page
