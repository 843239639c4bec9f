"""Records to JSON and back, by the types of `core.model`."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

R = TypeVar("R")


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(record: object) -> str:
    """A record as a JSON document."""
    return _adapter(cast("Any", type(record))).dump_json(record).decode()


def parse(kind: type[R], document: str) -> R:
    """The record in a JSON document; raises ValueError when it is none of this kind."""
    found: R = _adapter(cast("Any", kind)).validate_json(document)
    return found
