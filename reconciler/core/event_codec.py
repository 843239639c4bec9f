"""Conversion of events' payloads to JSON-compatible values and back.

The store and the HTTP API use it. Reading never fails: history contains events of other versions,
so an unknown key is ignored, and a value that is missing or of another type becomes the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from reconciler.core.events import (
    NOTHING,
    Event,
    EventKind,
    ImportsBefore,
    Payload,
    UnknownKind,
)
from reconciler.core.phases import Trigger
from reconciler.core.reasons import Reason

INVALID = object()
"""Result of a converter for a value that is not of its type."""


def data_of(event: Event) -> dict[str, object]:
    """Return the JSON object of an event's payload: as it was read, if it was read."""
    return dict(event.stored) if event.stored is not None else encoded(event.payload)


def encoded(payload: Payload) -> dict[str, object]:
    """Return the JSON object of a payload."""
    data: dict[str, object] = {}
    _write(payload, data)
    return data


def _write(payload: Payload, data: dict[str, object]) -> None:
    for one in _fields(type(payload)):
        value = getattr(payload, one.name)
        if one.part is not None:
            if value is not None:
                _write(value, data)
        elif value is not None:
            data[one.key] = one.write(value) if one.write is not None else value
        elif payload.has_nulls:
            data[one.key] = None


def decoded(kind: EventKind | UnknownKind, data: Mapping[str, object]) -> Payload:
    """Return the payload of an event of `kind` from its JSON object."""
    if isinstance(kind, UnknownKind):
        return NOTHING
    return _read(kind.payload, data)


def reason_of(kind: EventKind | UnknownKind, text: str) -> Reason | None:
    """Return the reason of an event of `kind` from its stored text."""
    return None if text == kind else Reason(text)


def keys_of(payload: type[Payload]) -> tuple[str, ...]:
    """Return the keys of a payload's JSON object, in order."""
    keys: list[str] = []
    for one in _fields(payload):
        keys.extend(keys_of(one.part) if one.part is not None else [one.key])
    return tuple(keys)


def _read(payload: type[Payload], data: Mapping[str, object]) -> Payload:
    values: dict[str, Any] = {}
    for one in _fields(payload):
        if one.part is not None:
            if one.needed is None or not one.needed.isdisjoint(data):
                values[one.name] = _read(one.part, data)
        elif one.key in data:
            value = one.read(data[one.key])
            if value is not INVALID:
                values[one.name] = value
    return payload(**values) if values else payload()


# ----------------------------------------------------------------------------------- converters


def _text(value: object) -> object:
    return value if isinstance(value, str) else INVALID


def _number(value: object) -> object:
    sound = isinstance(value, int | float) and not isinstance(value, bool)
    return value if sound else INVALID


def _texts(value: object) -> object:
    return tuple(map(str, value)) if isinstance(value, list) else INVALID


def _pairs(value: object) -> object:
    if not isinstance(value, list):
        return INVALID
    return tuple((str(p[0]), str(p[1])) for p in value if isinstance(p, list) and len(p) == 2)


def _numbers(value: object) -> object:
    if not isinstance(value, dict):
        return INVALID
    return {str(k): float(n) for k, n in value.items() if _number(n) is not INVALID}


TRIGGERS: Mapping[str, Trigger] = {trigger.value: trigger for trigger in Trigger}


def _trigger(value: object) -> object:
    return TRIGGERS.get(value) if isinstance(value, str) else None


def _imports_before(value: object) -> object:
    return _read(ImportsBefore, value) if isinstance(value, dict) else INVALID


def _as_lists(value: tuple[tuple[str, str], ...]) -> list[list[str]]:
    return [list(pair) for pair in value]


Convert = Callable[[Any], object]

CONVERTERS: Mapping[object, tuple[Convert, Convert | None]] = {
    str: (_text, None),
    str | None: (_text, None),
    int: (_number, None),
    int | None: (_number, None),
    float | None: (_number, None),
    tuple[str, ...]: (_texts, list),
    tuple[tuple[str, str], ...]: (_pairs, _as_lists),
    Mapping[str, float]: (_numbers, dict),
    Trigger | None: (_trigger, str),
    ImportsBefore | None: (_imports_before, encoded),
}
"""How a field is read from JSON and written, by its type; None: as it is."""


@dataclass(frozen=True, slots=True)
class _Field:
    """Field of a payload: a value with a key, or a `part`, which needs one of the keys `needed`."""

    name: str
    key: str
    read: Convert = _text
    write: Convert | None = None
    part: type[Payload] | None = None
    needed: frozenset[str] | None = None


_FIELDS: dict[type[Payload], tuple[_Field, ...]] = {}


def _fields(payload: type[Payload]) -> tuple[_Field, ...]:
    known = _FIELDS.get(payload)
    if known is None:
        hints = get_type_hints(payload)
        known = tuple(
            _field(one.name, str(one.metadata.get("key", one.name)), hints[one.name])
            for one in fields(payload)
        )
        _FIELDS[payload] = known
    return known


def _field(name: str, key: str, hint: Any) -> _Field:
    if hint in CONVERTERS:
        return _Field(name, key, *CONVERTERS[hint])
    if isinstance(hint, type):
        return _Field(name, key, part=hint)
    part = hint.__args__[0]  # it may be None
    return _Field(name, key, part=part, needed=frozenset(keys_of(part)))
