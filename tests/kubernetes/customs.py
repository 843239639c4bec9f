"""The Prometheus operator's kinds, for the laboratory, with the fields that the chart writes.

Field names and types are those of the operator's API reference; the API server's strict validation
refuses a field that is not listed here.
"""

from __future__ import annotations

from typing import Any

from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Administration

Json = dict[str, Any]

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "monitoring.coreos.com"
TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "object", "additionalProperties": TEXT}
DURATION: Json = {"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"}
NUMBER_OR_TEXT: Json = {"x-kubernetes-int-or-string": True}


def record(required: tuple[str, ...] = (), **properties: Json) -> Json:
    """Return the schema of an object with exactly these fields."""
    return {"type": "object", "properties": properties, "required": list(required)}


def listed(items: Json) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


RULE = record(
    ("expr",),
    alert=TEXT,
    record=TEXT,
    expr=NUMBER_OR_TEXT,
    labels=TEXTS,
    annotations=TEXTS,
    keep_firing_for=DURATION,
    **{"for": DURATION},
)
RULE_GROUP = record(
    ("name",),
    name={"type": "string", "minLength": 1},
    interval=DURATION,
    labels=TEXTS,
    limit={"type": "integer"},
    query_offset=DURATION,
    rules=listed(RULE),
)
ENDPOINT = record(
    port=TEXT,
    path=TEXT,
    interval=DURATION,
    scrapeTimeout=DURATION,
    scheme={"type": "string", "enum": ["http", "https"]},
    honorLabels={"type": "boolean"},
)
SPECS = {
    ("ServiceMonitor", "servicemonitors"): record(
        ("selector", "endpoints"),
        jobLabel=TEXT,
        endpoints=listed(ENDPOINT),
        selector=record(matchLabels=TEXTS),
        namespaceSelector=record(matchNames=listed(TEXT)),
    ),
    ("PrometheusRule", "prometheusrules"): record(groups=listed(RULE_GROUP)),
}


def install(lab: Administration) -> None:
    """Define the kinds, once per cluster."""
    for (kind, plural), spec in SPECS.items():
        name = f"{plural}.{GROUP}"
        document = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": record(("spec",), spec=spec)},
                    }
                ],
            },
        }
        query = "?fieldManager=lab&force=true"
        lab.api.call("PATCH", f"{PATH}/{name}{query}", document, "application/apply-patch+yaml")

        def established(name: str = name) -> bool:
            status = lab.api.call("GET", f"{PATH}/{name}").get("status", {})
            conditions = status.get("conditions") or []
            return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

        wait_for(established, 20, f"the kind {kind}")
