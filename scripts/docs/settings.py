"""Generator of docs/settings.md, from the model of the settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from reconciler.settings import Settings

HEAD = """\
# Settings

Every setting of the daemon and the command line, generated from the model by `make generate`.

Read from `groundcrew.toml` in the working directory (`--config` or `GROUNDCREW_CONFIG` for
another). Each is overridden by a variable, `git.url` by `GROUNDCREW_GIT__URL`: capitals, and two
underscores for a dot; lists and tables are then written as JSON. Durations are seconds, sizes
bytes. An unknown key is refused. With the [Helm chart](kubernetes.md) they stand below `config`.

Secrets are files, never settings: [operations.md](operations.md#secrets).
"""
NAMED = {"builder.parallel": "cores of the machine"}
"""Defaults that depend on the machine."""


def page() -> str:
    """Return the whole page."""
    sections: list[str] = []
    _section("", Settings, sections)
    return HEAD + "".join(sections)


def _section(path: str, model: type[BaseModel], sections: list[str], table: str = "") -> None:
    """Append a table of a model's own settings, then one for each nested model."""
    title = f"`[{table or path}]`" if path else "Top level"
    description = " ".join((model.__doc__ or "").split()) if path else "Before the first section."
    lines = [f"\n## {title}\n\n{description}\n"]
    lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
    inner: list[tuple[str, type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        nested = _model_in(field.annotation)
        if nested is not None:
            inner.append((key, *nested))
            if not nested[1]:
                continue
        lines.append(_row(key, name, field))
    sections.append("\n".join(lines) + "\n")
    for key, inside, kind in inner:
        shown = {"list": f"[{key}]", "map": f"{key}.<name>"}.get(kind, "")
        _section(key, inside, sections, shown)


def _row(key: str, name: str, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    text = re.sub(r"<(?=[^`]*(?:`[^`]*`[^`]*)*$)", "&lt;", text)  # not a tag; in code it stays
    cells = [f"`{name}`", _type(field.annotation), _default(key, field), text]
    return "| " + " | ".join(cells) + " |"


def _model_in(kind: Any) -> tuple[type[BaseModel], str] | None:
    """Return the nested model of a field, and "list" or "map" if the field holds several of it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind, ""
    for argument in get_args(kind):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, "map" if get_origin(kind) is dict else "list"
    return None


def _type(kind: Any) -> str:
    """Return a type as readable text."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{a}`" if a else "empty" for a in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return f"list of {_plural(_type(arguments[0]))}"
    if origin is dict:
        return "table"
    return {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true, false",
        Path: "path",
    }.get(kind, "table")


def _plural(words: str) -> str:
    return f"{words}s" if words in ("text", "number", "path", "table") else words


def _default(key: str, field: FieldInfo) -> str:
    """Return a default as a user would write it, or "" if there is none."""
    if key in NAMED:
        return NAMED[key]
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value in (None, "", (), {}) or _holds_models(value):
        return ""
    if isinstance(value, Path):
        return f'`"{value}"`'
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _holds_models(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(one, BaseModel) for one in value)
