"""Generator of the Helm chart's derived files, and of manifests for people without Helm.

`python -m scripts.manifests` writes the files; `--check` reports whether all are current:

- `files/` of the chart: copies of the rules in deploy/prometheus and dashboards in deploy/grafana
- in `values.schema.json`: the schema of `config`, from the model of the settings
- `deploy/manifests/`: the chart rendered by Helm's own engine with examples/plain.yaml
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

from reconciler.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "groundcrew"
EXAMPLES = DEPLOY / "helm" / "examples"
MANIFESTS = DEPLOY / "manifests"
SCHEMA = CHART / "values.schema.json"

Json = dict[str, Any]

COPIES = {"prometheus": "*.yaml", "grafana": "*.json"}
OWN = {  # settings that the chart derives from other values: not allowed in `config`
    "Settings": ["share", "state_dir", "secrets_dir", "database", "http"],
    "KubernetesSettings": ["kubeconfig", "volume", "verify_dags"],
    "JobSettings": ["namespace", "index_port", "priority_class"],
    "GitSettings": [],
}
FILES = {  # of deploy/manifests, in the order in which they are applied
    "01-namespaces": ("Namespace", "PriorityClass"),
    "02-share": ("PersistentVolume", "PersistentVolumeClaim"),
    "03-access": ("ServiceAccount", "Role", "RoleBinding"),
    "04-network": ("NetworkPolicy",),
    "05-daemon": ("ConfigMap", "Service", "Deployment", "PodDisruptionBudget"),
}
MONITORING = "monitoring/groundcrew"
HEAD = "# Rendered from deploy/helm/groundcrew by `make manifests`; see docs/kubernetes.md.\n"


# ------------------------------------------------------------------------------------------ render


def render(values: Mapping[str, Any], namespace: str = "groundcrew") -> Iterator[Json]:
    """Yield every document of a release `groundcrew`, without its tests. Raises HelmError."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(dict(values))
        rendered = chart.render(dict(values), name="groundcrew", namespace=namespace)
    for path, text in sorted(rendered.items()):
        if path.endswith(".yaml") and "/tests/" not in path:
            yield from (document for document in yaml.safe_load_all(text) if document)


def example(name: str) -> Json:
    """Return the values of one of deploy/helm/examples."""
    values: Json = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return values


def manifests() -> dict[Path, str]:
    """Return the text of each file below deploy/manifests."""
    values = example("plain")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "groundcrew"}}
    by_file: dict[str, list[Json]] = {name: [] for name in [*FILES, MONITORING]}
    by_file["01-namespaces"].append(namespace)
    for document in render(values):
        name = next((n for n, kinds in FILES.items() if document["kind"] in kinds), MONITORING)
        if document["metadata"]["name"].startswith("groundcrew-dashboard-"):
            name = MONITORING
        by_file[name].append(_plain(document))
    return {
        MANIFESTS / f"{name}.yaml": HEAD + "---\n".join(_text(d) for d in documents)
        for name, documents in by_file.items()
        if documents
    }


def _plain(document: Json) -> Json:
    """Return a document without Helm's labels and annotations."""
    meta = document["metadata"]
    pod = document.get("spec", {}).get("template", {}).get("metadata", {})
    for one in (meta, pod):
        labels = one.get("labels", {})
        labels.pop("helm.sh/chart", None)
        labels.pop("app.kubernetes.io/managed-by", None)
    annotations = meta.get("annotations", {})
    if annotations.pop("helm.sh/resource-policy", None) and not annotations:
        del meta["annotations"]
    return document


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes multi-line texts as blocks, as people do."""

    def ignore_aliases(self, data: object) -> bool:
        """Return True, so that no aliases are written."""
        del data
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _block)


def _text(document: Json) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


# --------------------------------------------------------------------------- the chart's own files


def copies() -> dict[Path, str]:
    """Return the text of each file below the chart's `files/`."""
    texts = {}
    for folder, pattern in COPIES.items():
        for path in sorted((DEPLOY / folder).glob(pattern)):
            text = path.read_text()
            if folder == "grafana" or "groups" in (yaml.safe_load(text) or {}):
                texts[CHART / "files" / folder / path.name] = text
    return texts


def schema() -> str:
    """Return values.schema.json with the schema of `config`."""
    document: Json = json.loads(SCHEMA.read_text())
    settings = Settings.model_json_schema(ref_template="#/definitions/{model}")
    definitions: Json = settings.pop("$defs")
    definitions["Settings"] = settings
    for name, keys in OWN.items():
        for key in keys:
            del definitions[name]["properties"][key]
        definitions[name].pop("required", None)
    definitions.pop("HttpSettings")
    document["definitions"] = _slim(dict(sorted(definitions.items())))
    document["properties"]["config"] = {"$ref": "#/definitions/Settings"}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _slim(node: Any) -> Any:
    """Return a schema without titles and defaults of sections, which can depend on the machine."""
    if isinstance(node, list):
        return [_slim(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _slim(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and isinstance(value, dict))
    }


def main() -> int:
    """Write all files; with `--check`, return 1 if any file is not current."""
    check = "--check" in sys.argv[1:]
    stale = _settle({SCHEMA: schema(), **copies()}, [CHART / "files"], check)
    if not (check and stale):  # the rendered chart contains the copies
        stale += _settle(manifests(), [MANIFESTS], check)
    if check:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not current; run `make manifests`\n")
    return 1 if check and stale else 0


def _settle(files: Mapping[Path, str], folders: list[Path], check: bool) -> list[Path]:
    """Update files and delete others in the folders; return those that were not current."""
    there = {p for folder in folders for p in folder.rglob("*.*") if p.suffix in (".yaml", ".json")}
    stale = [p for p, text in files.items() if not p.is_file() or p.read_text() != text]
    surplus = sorted(there - set(files))
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        for path in surplus:
            path.unlink()
    return [*stale, *surplus]


if __name__ == "__main__":
    sys.exit(main())
