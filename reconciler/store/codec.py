"""Conversion of records to JSON and back, by the types of `core.model`.

JSON has no infinite numbers: writing a record that contains one is refused, because it could never
be read again.
"""

from __future__ import annotations

import json
from functools import cache
from types import GenericAlias
from typing import Any, NoReturn, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

R = TypeVar("R")


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _writer(kind: type[Any]) -> TypeAdapter[Any]:
    """Return an adapter for one record in a tuple: a dataclass itself takes no configuration."""
    return TypeAdapter(
        cast("Any", GenericAlias(tuple, (kind,))), config=ConfigDict(ser_json_inf_nan="constants")
    )


def dump(record: object) -> str:
    """Return a record as a JSON document. Raises ValueError for an infinite number."""
    text = _writer(cast("Any", type(record))).dump_json((record,)).decode()[1:-1]
    if "Infinity" in text or "NaN" in text:  # possibly only inside a string
        json.loads(text, parse_constant=_refuse)
    return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"a record holds {constant}, which could not be read again")


def parse(kind: type[R], document: str) -> R:
    """Return the record in a JSON document. Raises ValueError if it is not of this kind."""
    try:
        record: R = _adapter(cast("Any", kind)).validate_json(document)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[:3]
        mistakes = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)
        raise ValueError("; ".join(mistakes)) from error
    return record
