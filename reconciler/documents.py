"""Documents that others wrote: checked against their shape before anything uses them.

Build code, indexes, Airflow and pods can write what they like. Each kind of document has a pydantic
model, and `parse` is the only way from bytes to it. Nesting is bounded by the parser, text is UTF-8
without lone surrogates, and whatever is wrong is a Malformed in words, never another exception.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, RootModel, ValidationError

LIMIT = 64 << 20  # bytes of a document

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Rows = Annotated[list[T], FailFast()]
"""A list that is given up at its first wrong row: errors of a million rows take gigabytes."""


class Malformed(ValueError):
    """A document that is not of its shape; the message says where, for users."""


class Document(BaseModel):
    """Base of the models: strict types, and unknown fields are ignored, so that others may add."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class List(RootModel[Rows[T]]):
    """Base of the models of documents that are lists."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def parse(kind: type[M], data: bytes | str, what: str, limit: int = LIMIT) -> M:
    """Parse JSON as a `kind`; raises Malformed, whose message begins with `what`."""
    if len(data) > limit:
        raise Malformed(f"{what} is larger than {limit} bytes")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _malformed(error, what) from None
    except UnicodeError as error:  # text with lone surrogates
        raise Malformed(f"{what} is not text: {error.reason}") from None  # type: ignore[attr-defined]


def check(kind: type[M], found: object, what: str) -> M:
    """Check an object that was parsed already; raises Malformed as `parse` does."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise _malformed(error, what) from None


def _malformed(error: ValidationError, what: str) -> Malformed:
    """Return the first error in words; what was written is not repeated."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part)[:80] for part in first["loc"][:8])
    words = f"{where}: {first['msg']}" if where else first["msg"]
    return Malformed(f"{what} is not as it should be: {words[:300]}")
