"""Rendered chart of the examples, and functions to find documents in it."""

from __future__ import annotations

import tomllib
from typing import Any

from reconciler.builder.executor.kubernetes.manifest import Order, job_manifest
from reconciler.core.runtime import Image
from reconciler.settings import Settings
from scripts.manifests import EXAMPLES, example, render

Json = dict[str, Any]

NAMESPACES = {"one-namespace": "airflow"}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
CUSTOM = {"ServiceMonitor", "PrometheusRule"}


def home(name: str) -> str:
    """Return the namespace of an example."""
    return NAMESPACES.get(name, "groundcrew")


def release(name: str) -> list[Json]:
    """Return the documents of an example."""
    return list(render(example(name), home(name)))


def one(documents: list[Json], kind: str, name: str = "", namespace: str = "") -> Json:
    """Return the only document of a kind (of a name, in a namespace)."""
    (match,) = (
        document
        for document in documents
        if document["kind"] == kind
        and name in ("", document["metadata"]["name"])
        and namespace in ("", document["metadata"].get("namespace"))
    )
    return match


def pod_of(documents: list[Json]) -> Json:
    """Return the pod of the daemon."""
    pod: Json = one(documents, "Deployment")["spec"]["template"]["spec"]
    return pod


def job_of(documents: list[Json]) -> Json:
    """Return a Job as the daemon creates it with the rendered settings."""
    settings = Settings(**tomllib.loads(text_of(documents)))
    share = settings.share
    image = Image("in-cluster", "example.test/airflow@sha256:" + "0" * 64, "id", 50000, 0)
    order = Order(
        "groundcrew-0123456789abcdef-a1b2c3",
        "red",
        "0123456789abcdef",
        image,
        share,
        share / "staging" / "one",
        ("python3", "worker.py"),
    )
    return job_manifest(order, settings.kubernetes)


def text_of(documents: list[Json]) -> str:
    """Return the groundcrew.toml of a release."""
    return str(one(documents, "ConfigMap", "groundcrew")["data"]["groundcrew.toml"])


def merged(values: Json, more: Json) -> Json:
    """Return values overridden by others, as Helm merges files."""
    combined = dict(values)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(combined.get(key), dict)
        combined[key] = merged(combined[key], value) if both else value
    return combined
