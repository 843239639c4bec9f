"""OpenAPI document of `/api/v1`.

`python -m reconciler.api.openapi` writes it to docs/openapi.json; `--check` reports whether that
file is current.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from reconciler.api import contract
from reconciler.api.operations import JSON, OPERATIONS, ROOT, Operation
from reconciler.api.tokens import Role

FILE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
REF = "#/components/schemas/{model}"
WORDS = {
    401: "no known token came with the request",
    403: "the token is not good for this",
    404: "there is no such object",
    409: "that cannot be asked for this object",
    422: "a parameter or the body is not as described",
    503: "the records or the share do not answer; ask again",
}
ABOUT = """The records of a Groundcrew daemon, the same documents as the command line's `-o json`.

Times are ISO 8601 in UTC, null when there is none; durations are seconds. Within v1 keys may be
added, and are never renamed or dropped. Every refusal is an object with `reason` and `message`.
"""

Json = dict[str, Any]


@cache
def document() -> Json:
    """Return the whole document, as JSON-compatible values."""
    paths: dict[str, Json] = {}
    for one in OPERATIONS:
        paths.setdefault(f"{ROOT}{one.path}", {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Groundcrew", "version": "1", "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "see docs/api.md"}
            },
        },
    }


def _schemas() -> Json:
    models: list[type[BaseModel]] = [contract.Error]
    for one in OPERATIONS:
        models += [m for m in (one.answer, one.body) if isinstance(m, type)]
    _, definitions = models_json_schema(
        [(m, "serialization") for m in dict.fromkeys(models)], ref_template=REF
    )
    schemas: Json = definitions["$defs"]
    return schemas


def _operation(one: Operation) -> Json:
    refusals = (*((401,) if one.role else ()), *((403,) if one.role is Role.OPERATE else ()))
    described: Json = {
        "operationId": one.name,
        "summary": one.summary,
        "parameters": [*_path_parameters(one), *_query_parameters(one)],
        "responses": {
            str(one.status): {
                "description": "done" if one.status == 200 else "queued",
                "content": _content(one),
            },
            **{str(code): _refusal(code) for code in sorted({*refusals, *one.refusals, 422, 503})},
        },
        "security": [{"token": []}] if one.role else [],
    }
    if one.body is not None:
        schema = {"$ref": REF.format(model=one.body.__name__)}
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return described


def _content(one: Operation) -> Json:
    if isinstance(one.answer, str):
        return {
            one.answer: {"schema": {"type": "object"} if one.answer == JSON else {"type": "string"}}
        }
    schema: Json = {"$ref": REF.format(model=one.answer.__name__)}
    return {JSON: {"schema": {"type": "array", "items": schema} if one.many else schema}}


def _refusal(code: int) -> Json:
    schema = {"$ref": REF.format(model="Error")}
    return {"description": WORDS[code], "content": {JSON: {"schema": schema}}}


def _path_parameters(one: Operation) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": TypeAdapter(kind).json_schema()}
        for name, kind in one.path_types.items()
    ]


def _query_parameters(one: Operation) -> list[Json]:
    schema = one.query.model_json_schema(ref_template="#/$defs/{model}")
    parameters = []
    for name, described in schema.get("properties", {}).items():
        described = _inlined(described, schema.get("$defs", {}))
        parameter = {"name": name, "in": "query", "required": False, "schema": described}
        for key in ("title", "default"):
            if described.get(key, "") in (None, name.capitalize()):
                described.pop(key, None)
        if text := described.pop("description", ""):
            parameter["description"] = text
        parameters.append(parameter)
    return parameters


def _inlined(schema: Json, defs: Json) -> Json:
    """Return a parameter's schema without references, and without null: it may just be absent."""
    choices = [c for c in schema.get("anyOf", []) if c.get("type") != "null"]
    if len(choices) == 1:
        schema = {**{k: v for k, v in schema.items() if k != "anyOf"}, **choices[0]}
    if "$ref" in schema:
        definition = defs[schema.pop("$ref").rpartition("/")[2]]
        schema = {k: v for k, v in {**definition, **schema}.items() if k in ("type", "enum")}
    return schema


def text() -> str:
    """Return the text of the file docs/openapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file; with `--check`, return 1 if it is not current."""
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text())
        return 0
    current = FILE.is_file() and FILE.read_text() == text()
    if not current:
        sys.stderr.write(f"{FILE.name} is not current; run `make generate`\n")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
