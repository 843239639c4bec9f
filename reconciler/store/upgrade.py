"""Documents that earlier versions wrote, in the current format.

A row keeps its earlier format until its record changes. An earlier version cannot read a row in the
current format: it leaves that object as it is, and never takes it for something else.
"""

from __future__ import annotations

import json
from typing import Any

Document = dict[str, Any]

EARLIER = ('"baseline":[[', '"wait":"', '"current_digest":')
"""Text of which a document in an earlier format contains one, and no current document any."""


def upgraded(document: str, runtime: str | None) -> str:
    """Return a document in the current format; `runtime` is the key of an instance's runtime.

    Baselines used to be pairs of a file and "", a wait was its message alone, and the parts of a
    deployment were separate fields.
    """
    if not any(text in document for text in EARLIER):
        return document
    record: Document = json.loads(document)
    if isinstance(record.get("wait"), str):
        record["wait"] = {"on": None, "message": record["wait"]} if record["wait"] else None
    activations = [one for one in (record.get("activation"), record.get("last")) if one is not None]
    for activation in activations:
        pairs = activation["baseline"]
        activation["baseline"] = [x[0] if isinstance(x, list) else x for x in pairs]
    if "current_digest" in record:
        for activation in activations:
            _nest_activation(activation, record, runtime)
        _nest_instance(record, runtime)
    return json.dumps(record)


def _nest_activation(activation: Document, record: Document, runtime: str | None) -> None:
    """Put an activation's fields of its two builds into deployments, and drop its phase.

    The recipe of a new build was not recorded; the next decision after the activation adds it.
    """
    known: dict[str, tuple[str | None, str | None]] = {
        record["previous"]: (record["previous_digest"], runtime),
        record["current"]: (record["current_digest"], record["current_runtime"]),
    }
    for field, build, load_into in (
        ("origin", "from_build", "from_load_into"),
        ("target", "to_build", "load_into"),
    ):
        name = activation.pop(build)
        recipe, made_for = known.get(name, (None, runtime))
        activation[field] = _deployment(name, recipe, made_for, activation.pop(load_into))
    activation.pop("phase")


def _nest_instance(record: Document, runtime: str | None) -> None:
    """Put an instance's fields of its builds into deployments.

    If components might have loaded another build, no component was recorded as loading this one.
    """
    load_into = record.pop("current_load_into")
    record["may_load_another"] = load_into == []
    recipe, made_for = record.pop("current_digest"), record.pop("current_runtime")
    record["current"] = _deployment(record["current"], recipe, made_for, load_into or [])
    record["previous"] = _deployment(record["previous"], record.pop("previous_digest"), runtime, [])


def _deployment(
    build: str | None, recipe: str | None, runtime: str | None, load_into: list[str]
) -> Document:
    if build is None:
        recipe = runtime = None
    return {"build": build, "recipe": recipe, "runtime": runtime, "load_into": load_into}
