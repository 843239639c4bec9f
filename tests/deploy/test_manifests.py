"""Files that the chart copies, and the manifests for people without Helm."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path

import pytest
import yaml

from gitsource.validate import validate
from reconciler.cli.airflow_values import chart_values
from reconciler.settings import Settings
from scripts import manifests
from scripts.manifests import MANIFESTS, render
from tests.deploy.rendered import CUSTOM, merged, one, release

# --------------------------------------------------------------------------------------- monitoring


def test_without_rules_and_dashboards_there_are_none(chart: Path) -> None:
    """Whether or not they are enabled."""
    kinds = {d["kind"] for d in release("large")}
    assert "ServiceMonitor" in kinds
    assert "PrometheusRule" not in kinds
    assert [d["metadata"]["name"] for d in release("large") if d["kind"] == "ConfigMap"] == [
        "groundcrew"
    ]


def test_rules_and_dashboards_are_taken_as_they_are(chart: Path) -> None:
    """All groups of all files, and each dashboard in a ConfigMap that Grafana's sidecar finds."""
    text = '{"title": "{{ $labels.team }} of 100 %"}\n'
    annotations = {"summary": "{{ $labels.team }}", "runbook_url": "docs/runbooks/A.md"}
    rule = {"alert": "A", "expr": "up == 0", "annotations": annotations}
    for group in ("one", "two"):
        document = {"groups": [{"name": group, "rules": [rule]}]}
        (chart / "files" / "prometheus" / f"{group}.yaml").write_text(yaml.safe_dump(document))
    (chart / "files" / "grafana" / "fleet.json").write_text(text)
    documents = release("large")
    groups = one(documents, "PrometheusRule")["spec"]["groups"]
    annotations["runbook_url"] = "https://git.example.com/groundcrew/docs/runbooks/A.md"
    assert groups == [{"name": name, "rules": [rule]} for name in ("one", "two")]
    config_map = one(documents, "ConfigMap", "groundcrew-dashboard-fleet")
    assert config_map["data"] == {"fleet.json": text.rstrip()}
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert not [d for d in release("small") if d["kind"] == "PrometheusRule"]


# ---------------------------------------------------------------------------------- plain manifests


def test_what_is_not_current_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` names a changed file and a surplus one; files just written are current."""
    deploy = tmp_path / "deploy"
    shutil.copytree(manifests.DEPLOY, deploy)
    for name in ("DEPLOY", "CHART", "EXAMPLES", "MANIFESTS", "SCHEMA"):
        there = getattr(manifests, name).relative_to(manifests.ROOT)
        monkeypatch.setattr(manifests, name, tmp_path / there)
    monkeypatch.setattr(manifests, "ROOT", tmp_path)
    for arguments in ([], ["--check"]):
        monkeypatch.setattr("sys.argv", ["manifests", *arguments])
        assert manifests.main() == 0
    (deploy / "manifests" / "05-daemon.yaml").write_text("kind: Deployment\n")
    (deploy / "manifests" / "99-old.yaml").write_text("kind: Job\n")
    assert manifests.main() == 1
    said = capsys.readouterr().err
    assert "deploy/manifests/05-daemon.yaml is not current" in said
    assert "deploy/manifests/99-old.yaml is not current" in said
    (deploy / "grafana").mkdir(exist_ok=True)
    (deploy / "grafana" / "new.json").write_text("{}\n")
    assert manifests.main() == 1
    assert "groundcrew/files/grafana/new.json is not current" in capsys.readouterr().err


def test_the_manifests_need_no_helm_and_no_custom_kinds() -> None:
    """Namespaces come first; what needs the Prometheus operator is in a separate directory."""
    paths = sorted(MANIFESTS.glob("*.yaml"))
    documents = [d for p in paths for d in yaml.safe_load_all(p.read_text())]
    assert [d["kind"] for d in documents[:2]] == ["Namespace", "Namespace"]
    assert not {d["kind"] for d in documents} & CUSTOM
    assert "helm" not in "".join(p.read_text().partition("\n")[2].lower() for p in paths)
    made = {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents}
    extra = [MANIFESTS / "monitoring" / "groundcrew.yaml"]
    made |= {
        (d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"])
        for path in extra
        for d in yaml.safe_load_all(path.read_text())
    }
    rendered = {
        (d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in release("plain")
    }
    assert made - rendered == {("Namespace", None, "groundcrew")}
    assert rendered <= made


# --------------------------------------------------------------------------------------------- docs


def blocks() -> list[str]:
    """Return the YAML of docs/kubernetes.md."""
    text = (manifests.ROOT / "docs" / "kubernetes.md").read_text()
    matches = re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body) for _, body in matches]


def test_the_docs_values_are_taken() -> None:
    """The first block installs, and so does each other part with it."""
    first, *others = [b for b in blocks() if "apiVersion" not in b and "PYTHONPATH" not in b]
    values = yaml.safe_load(first)
    assert len(list(render(values))) > 10
    for part in others:
        more = yaml.safe_load(part)
        base = {**values, "share": {}} if "share" in more else values
        assert len(list(render(merged(base, more)))) > 10, part


def test_the_docs_instance_is_connected_as_they_say(tmp_path: Path) -> None:
    """The definition is valid, and `groundcrew airflow-values` prints what is shown."""
    instance = next(b for b in blocks() if re.search("^kind: Instance", b, re.MULTILINE))
    (connect,) = (b for b in blocks() if "PYTHONPATH" in b)
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / "analytics-prod.yaml").write_text(instance)
    definitions, findings = validate(tmp_path)
    assert not findings
    assert list(definitions.instances) == ["analytics-prod"]
    assert yaml.safe_load(connect) == chart_values(Settings(), "analytics-prod")
