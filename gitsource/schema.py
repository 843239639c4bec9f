"""Generator of the JSON Schema for editors and of the reference of definitions, from the models.

`python -m gitsource.schema` writes them; `--check` reports whether they are current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gitsource.models import EnvironmentModel, FragmentModel, InstanceModel

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "docs" / "schema" / "groundcrew-v1.json"
REFERENCE = ROOT / "docs" / "definitions.md"
KINDS = (EnvironmentModel, InstanceModel, FragmentModel)

HEAD = """\
# Definitions

Every key of the environments repo's files, generated from the models by `make generate`. Editors
complete and check them with [the JSON Schema](schema/groundcrew-v1.json); `groundcrew validate`
checks everything, with file, line and column.

| file | kind |
|---|---|
| `teams/<team>/<environment>.yaml` | Environment |
| `instances/<instance>.yaml` | Instance |
| `shared/<name>.yaml` | Fragment |

Durations are like `90s`, `15m`, `2h`.
"""


def schema() -> dict[str, Any]:
    """Return the schema of any definition file."""
    model_schema: dict[str, Any] = TypeAdapter(
        EnvironmentModel | InstanceModel | FragmentModel
    ).json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Groundcrew definition",
        **model_schema,
    }


def reference() -> str:
    """Return the tables of docs/definitions.md."""
    parts = [HEAD]
    shown: set[str] = set()
    definitions = schema()["$defs"]
    for kind in KINDS:
        _table(kind.__name__, definitions, shown, parts)
    return "\n".join(parts)


def _table(name: str, definitions: dict[str, Any], shown: set[str], parts: list[str]) -> None:
    if name in shown:
        return
    shown.add(name)
    model = definitions[name]
    title = name.removesuffix("Model")
    lines = [f"## {title}\n", " ".join(str(model.get("description", "")).split()) + "\n"]
    if "properties" in model:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        required = set(model.get("required", ()))
        for key, field in model["properties"].items():
            default = "required" if key in required else _default(field)
            description = " ".join(str(field.get("description", "")).split()).replace("|", "\\|")
            lines.append(f"| `{key}` | {_type(field)} | {default} | {description} |")
    parts.append("\n".join(lines) + "\n")
    for field in model.get("properties", {}).values():
        for other in _named(field):
            _table(other, definitions, shown, parts)


def _default(field: dict[str, Any]) -> str:
    """Return a field's default as a user would write it, or "" if it is empty."""
    value = field.get("default")
    if value is None:
        return ""
    return f"`{value:.0f}s`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def _type(field: dict[str, Any]) -> str:
    """Return a field's type as text, with a link if it has its own table."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        title = name.removesuffix("Model")
        return f"[{title}](#{title.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(f) for f in field["anyOf"] if f.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{v}`" for v in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"map of {_type(values)}" if isinstance(values, dict) else "map"
    return str(field.get("type", "any"))


def _named(field: object) -> list[str]:
    """Return the names of the definitions that a field refers to."""
    if isinstance(field, dict):
        own = [field["$ref"].rpartition("/")[2]] if "$ref" in field else []
        return own + [name for value in field.values() for name in _named(value)]
    if isinstance(field, list):
        return [name for value in field for name in _named(value)]
    return []


def main() -> int:
    """Write both files; with `--check`, return 1 if one is not current."""
    files = {
        SCHEMA: json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        REFERENCE: reference(),
    }
    stale = [p for p, text in files.items() if not p.is_file() or p.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not current; run `make generate`\n")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
