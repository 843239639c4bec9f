"""Records to JSON and back, by the types of `core.model`.

JSON has no infinite numbers: a record that holds one is refused when it is written, as it could
never be read again.
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
    """Writes one record as a list of one: only what is no dataclass takes a configuration."""
    return TypeAdapter(
        cast("Any", GenericAlias(tuple, (kind,))), config=ConfigDict(ser_json_inf_nan="constants")
    )


def dump(record: object) -> str:
    """A record as a JSON document; raises ValueError for an infinite number."""
    text = _writer(cast("Any", type(record))).dump_json((record,)).decode()[1:-1]
    if "Infinity" in text or "NaN" in text:  # perhaps only as words in a text
        json.loads(text, parse_constant=_refuse)
    return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"a record holds {constant}, which could not be read again")


def parse(kind: type[R], document: str) -> R:
    """The record in a JSON document; raises ValueError when it is none of this kind."""
    try:
        found: R = _adapter(cast("Any", kind)).validate_json(document)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[:3]
        words = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)
        raise ValueError("; ".join(words)) from error
    return found
