"""Documents from outside, validated against their models before anything uses them.

Build code, indexes, Airflow and pods may write anything. Each kind of document has a pydantic
model, and `parse` is the only way from bytes to it. The parser bounds nesting, text is UTF-8
without lone surrogates, and any error is a Malformed with a readable message, never another
exception.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, RootModel, ValidationError

LIMIT = 64 << 20  # bytes per document

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Rows = Annotated[list[T], FailFast()]
"""List that stops at its first invalid row: errors of a million rows would take gigabytes."""


class Malformed(ValueError):
    """Error for a document that does not match its model; the message says where, for users."""


class Document(BaseModel):
    """Base of the models: strict types; unknown fields are ignored, so that others may add some."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class List(RootModel[Rows[T]]):
    """Base of the models of documents that are lists."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def parse(kind: type[M], data: bytes | str, what: str, limit: int = LIMIT) -> M:
    """Parse JSON as a `kind`. Raises Malformed with a message that begins with `what`."""
    if len(data) > limit:
        raise Malformed(f"{what} is larger than {limit} bytes")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _malformed(error, what) from None
    except UnicodeError as error:  # text with lone surrogates
        raise Malformed(f"{what} is not text: {error.reason}") from None  # type: ignore[attr-defined]


def parse_toml(kind: type[M], text: str, what: str, limit: int = LIMIT) -> M:
    """Parse TOML as a `kind`. Raises Malformed as `parse` does.

    Call it in a worker process: Python's parser has no limit on the time that it takes.
    """
    if len(text) > limit:
        raise Malformed(f"{what} is larger than {limit} bytes")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"{what} is not TOML: {str(error)[:300]}") from None
    except RecursionError:
        raise Malformed(f"{what} is nested too deeply") from None
    return check(kind, found, what)


def check(kind: type[M], found: object, what: str) -> M:
    """Validate an object that is already parsed. Raises Malformed as `parse` does."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise _malformed(error, what) from None


def _malformed(error: ValidationError, what: str) -> Malformed:
    """Return an error with the first mistake; the invalid input is not repeated."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part)[:80] for part in first["loc"][:8])
    message = f"{where}: {first['msg']}" if where else first["msg"]
    return Malformed(f"{what} is invalid: {message[:300]}")
