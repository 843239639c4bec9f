"""The rules themselves: valid, each one tested, and each with a page that says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
SECTIONS = ["## What it means", "## What to look at", "## What to do", "## When it clears"]


def alerts() -> list[dict[str, Any]]:
    """Return every alerting rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def run(*words: str | Path) -> str:
    """Run a program of Prometheus; return its output if it succeeds."""
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


NAMES = sorted({rule["alert"] for rule in alerts()})


def test_promtool_finds_the_rules_sound() -> None:
    """`promtool check rules` accepts them, including its lint."""
    output = run("promtool", "check", "rules", "--lint-fatal", RULES)
    assert "SUCCESS" in output


@pytest.mark.parametrize("tests", TESTS, ids=lambda path: path.stem)
def test_every_alert_fires_and_clears(tests: Path) -> None:
    """`promtool test rules` checks labels, times and texts."""
    assert "SUCCESS" in run("promtool", "test", "rules", tests)


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_tested_to_fire_and_then_to_clear(name: str) -> None:
    """A test that never sees it fire, or never sees it end, proves nothing."""
    severities = {rule["labels"]["severity"] for rule in alerts() if rule["alert"] == name}
    fired: set[str] = set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            seen = [
                (int(t["eval_time"].rstrip("m")), t["exp_alerts"])
                for t in case["alert_rule_test"]
                if t["alertname"] == name
            ]
            firing = [at for at, expected in seen if expected]
            if firing and max(at for at, _ in seen) > max(firing):
                fired |= {a["exp_labels"]["severity"] for _, expected in seen for a in expected}
    assert fired == severities


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_can_be_routed_and_understood(rule: dict[str, Any]) -> None:
    """It has a severity, a team (or none, on purpose), a text and an existing page."""
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    of_series = re.search(r"by \([^)]*\bteam\b[^)]*\)", rule["expr"]) is not None
    recorded = "instance:groundcrew_out_of_sync:max" in rule["expr"]
    assert "team" in rule["labels"] or of_series or recorded
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert len(annotations["summary"]) < 120
    assert annotations["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    """Pages are named after their alerts; the index names all of them."""
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README", "Reasons"}
    assert pages == set(NAMES)
    index = (RUNBOOKS / "README.md").read_text()
    assert [name for name in NAMES if f"({name}.md)" not in index] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_page_answers_the_same_questions(name: str) -> None:
    """Meaning, where to look, what to do and when it clears, in this order."""
    lines = (RUNBOOKS / f"{name}.md").read_text().splitlines()
    assert lines[0] == f"# {name}"
    assert [line for line in lines if line.startswith("## ")] == SECTIONS


def test_reasons_in_the_rules_are_given_by_the_code() -> None:
    """A reason that the code never gives would never fire."""
    groups = re.findall(r'reason=~?"([A-Za-z|]+)"', RULES.read_text())
    reasons = {reason for group in groups for reason in group.split("|")}
    assert len(reasons) > 5
    code = "\n".join(
        path.read_text()
        for package in ("gitsource", "reconciler")
        for path in (ROOT / package).rglob("*.py")
    )
    assert sorted(r for r in reasons if f'"{r}"' not in code) == []


def test_the_examples_are_configurations_that_start() -> None:
    """Prometheus and Alertmanager accept the example configurations."""
    examples = ROOT / "deploy" / "prometheus" / "examples"
    assert "SUCCESS" in run("promtool", "check", "config", examples / "prometheus.yaml")
    assert "SUCCESS" in run("amtool", "check-config", examples / "alertmanager.yaml")


def test_whoever_scrapes_honors_the_labels() -> None:
    """`instance` is a Groundcrew Instance in the example and in the chart's ServiceMonitor."""
    example = yaml.safe_load((ROOT / "deploy/prometheus/examples/prometheus.yaml").read_text())
    assert [c["honor_labels"] for c in example["scrape_configs"]] == [True]
    monitors = [
        document
        for path in (ROOT / "deploy" / "manifests").rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document and document["kind"] == "ServiceMonitor"
    ]
    assert monitors
    for monitor in monitors:
        assert all(endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"])
