"""Documents that others wrote: checked against their shape before anything uses them.

Build code, indexes, Airflow and pods can write what they like. Each kind of document has a pydantic
model, and `parse` is the only way from bytes to it. Nesting is bounded by the parser, text is UTF-8
without lone surrogates, and whatever is wrong is a Malformed in words, never another exception.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, FailFast, TypeAdapter, ValidationError

LIMIT = 64 << 20  # bytes of a document

T = TypeVar("T")
Rows = Annotated[list[T], FailFast()]
"""A list that is given up at its first wrong row: one message is enough, a million take memory."""


class Malformed(ValueError):
    """A document that is not of its shape; the message says where, for users."""


class Document(BaseModel):
    """Base of the models: strict types, and unknown fields are ignored, so that others may add."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


@lru_cache(maxsize=64)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    of: Any = kind
    return TypeAdapter(of, config=None if _is_model(kind) else ConfigDict(allow_inf_nan=False))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def parse(kind: type[T], data: bytes | str, what: str, limit: int = LIMIT) -> T:
    """Parse JSON as a `kind`; raises Malformed, whose message begins with `what`."""
    if len(data) > limit:
        raise Malformed(f"{what} is larger than {limit} bytes")
    try:
        found: T = _adapter(cast(Hashable, kind)).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:80] for part in first["loc"][:8])
        raise Malformed(
            f"{what} is not of its shape: {where + ': ' if where else ''}{first['msg'][:200]}"
        ) from None
    except (UnicodeError, RecursionError) as error:  # text with lone surrogates
        raise Malformed(f"{what} is not text: {type(error).__name__}") from None
    return found


def check(kind: type[T], found: object, what: str) -> T:
    """Check an object that was parsed already; raises Malformed as `parse` does."""
    try:
        checked: T = _adapter(cast(Hashable, kind)).validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:80] for part in first["loc"][:8])
        raise Malformed(
            f"{what} is not of its shape: {where + ': ' if where else ''}{first['msg'][:200]}"
        ) from None
    except RecursionError:
        raise Malformed(f"{what} is nested too deeply") from None
    return checked
