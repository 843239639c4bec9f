"""Conversion of one file to one typed definition, or to findings with advice."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gitsource.fields import NAME, WRITE
from gitsource.models import API_VERSION, KINDS, EnvironmentModel, FragmentModel, InstanceModel
from gitsource.requirement_lines import InRepo, package_meant
from gitsource.strictyaml import Document, Path, YamlProblem, parse
from reconciler.core.definitions import Finding, Place
from reconciler.core.reasons import Reason

TYPES = {  # the expected type for an error message
    "bool_type": "true or false",
    "dict_type": "keys with values below it, such as `key: value`",
    "list_type": "a list, such as [one, two]",
    "model_type": "keys with values below it, such as `key: value`",
    "string_type": "a text",
}
NAME_MOST = 63  # characters of an object's name
AnyModel = EnvironmentModel | InstanceModel | FragmentModel


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Contents of one file: a definition with the places of its parts, or findings."""

    path: str
    model: AnyModel | None
    document: Document | None
    findings: tuple[Finding, ...] = ()
    skipped: bool = False  # not parsed, because other files took too long
    packages: tuple[tuple[int, InRepo], ...] = ()  # that findings are about, by their numbers

    def place(self, *path: str | int) -> Place:
        """Return the place of a part of the definition."""
        return self.document.place(path) if self.document else Place(self.path)

    @property
    def object(self) -> str:
        """The name of the object: Environment/analytics."""
        return f"{self.model.kind}/{self.model.metadata.name}" if self.model else self.path


def read_file(path: str, text: str) -> ReadFile:
    """Parse one definition; mistakes become findings."""
    try:
        document = parse(path, text)
    except YamlProblem as problem:
        return ReadFile(path, None, None, (problem.finding,))
    value = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or kind not in KINDS:
        message = f"write kind: {', '.join(KINDS)}" + (f", not {_short(kind)}" if kind else "")
        location = document.place(("kind",))
        return ReadFile(path, None, None, (Finding(location, path, Reason.INVALID_VALUE, message),))
    name = _name_of(value, kind, path)
    try:
        model = KINDS[kind].model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        findings = tuple(_finding(document, name, KINDS[kind], one) for one in details[:20])
        meant = [(number, _package_meant(one)) for number, one in enumerate(details[:20])]
        packages = tuple((number, package) for number, package in meant if package is not None)
        return ReadFile(path, None, None, findings, packages=packages)
    return ReadFile(path, model, replace(document, value=None))


def _name_of(value: dict[str, Any], kind: str, path: str) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    called = isinstance(name, str) and 0 < len(name) <= NAME_MOST
    return f"{kind}/{name}" if called else path


def _package_meant(detail: ErrorDetails) -> InRepo | None:
    """Return the in-repo package that a refused requirement means, or None."""
    is_requirement = detail["loc"][:2] == ("spec", "requirements")
    if not is_requirement or detail["type"] != "value_error":
        return None
    return package_meant(detail["input"])


def _finding(
    document: Document, name: str, model: type[BaseModel], detail: ErrorDetails
) -> Finding:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    where: Path = path
    kind = detail["type"]
    if kind == "extra_forbidden":
        where = (*path, "__key__")
        reason, message = Reason.UNKNOWN_KEY, _unknown_key(model, path)
    elif kind == "missing":
        reason, message = Reason.MISSING_KEY, f"add the key {_dotted(path)}"
        where = path[:-1]
    elif kind.endswith("_type") or kind in ("dict_type", "model_type"):
        reason, message = Reason.WRONG_TYPE, _wrong_type(path, detail)
    else:
        reason, message = Reason.INVALID_VALUE, f"{_dotted(path)}: {_instead(path, detail)}"
    return Finding(document.place(where), name, reason, message)


def _instead(path: Path, detail: ErrorDetails) -> str:
    """Return the advice for an invalid value."""
    given = _short(detail["input"])
    context: dict[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "literal_error" if path[-1:] == ("apiVersion",):
            return f"write {API_VERSION}, not {given}"
        case "literal_error":
            return f"write {context['expected'].replace(chr(39), '')}, not {given}"
        case "string_pattern_mismatch":
            advice = f"write {WRITE[context['pattern']]}, not {given}"
            close = _name_like(detail["input"]) if context["pattern"] == NAME else ""
            return advice + (f"; {close} would do" if close else "")
        case "too_short":
            return "write at least one item, or remove the key"
        case "too_long":
            return f"write at most {context['max_length']} items"
        case "string_too_short":
            return "write something, or remove the item"
        case "string_too_long":
            return f"write at most {context['max_length']} characters"
        case _:
            return detail["msg"].removeprefix("Value error, ")


def _name_like(given: object) -> str:
    """Return the nearest valid name, or ""."""
    return re.sub(r"[^a-z0-9]+", "-", str(given)[:NAME_MOST].lower()).strip("-")


def _wrong_type(path: Path, detail: ErrorDetails) -> str:
    given = detail["input"]
    wanted = TYPES.get(detail["type"], detail["msg"])
    advice = f"{_dotted(path)}: write {wanted}, not {'nothing' if given is None else _short(given)}"
    if detail["type"] == "bool_type" and str(given).lower() in ("yes", "no", "on", "off", "y", "n"):
        right = "true" if str(given).lower() in ("yes", "on", "y") else "false"
        advice = f"{_dotted(path)}: write {right}; only true and false are booleans, not {given}"
    elif detail["type"] == "string_type" and isinstance(given, bool):
        advice = f'{_dotted(path)}: write it in quotes: "{str(given).lower()}"'
    elif detail["type"] == "string_type" and isinstance(given, int | float):
        advice = f'{_dotted(path)}: write it in quotes: "{_short(given)}"'
    return advice


def _unknown_key(model: type[BaseModel], path: Path) -> str:
    known = _keys_at(model, path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(sorted(known))}"
    return f"unknown key {path[-1]!r}{hint}"


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that the model knows at `path`."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        if not (isinstance(here, type) and issubclass(here, BaseModel)):
            return []
        if part not in here.model_fields:
            continue
        here = _inner(here.model_fields[part].annotation)
    known = isinstance(here, type) and issubclass(here, BaseModel)
    return list(here.model_fields) if known else []


def _inner(annotation: Any) -> Any:
    """Return the model inside list[…], dict[…, …] and … | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in reversed(getattr(annotation, "__args__", ())):
        model = _inner(part)
        if model is not None:
            return model
    return None


def _dotted(path: Path) -> str:
    dotted = ""
    for part in path:
        dotted += f"[{part}]" if isinstance(part, int) else f".{part}"
    return dotted.removeprefix(".") or "the object"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
