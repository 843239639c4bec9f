"""What may go wrong with the records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError

from reconciler.core.errors import Retryable


class Conflict(Retryable):
    """Someone else changed a row in between: read again, decide again."""

    def __init__(self, message: str) -> None:
        super().__init__("Conflict", message, after=0.1)


class LeaseLost(Retryable):
    """The lease is another's, or ran out: stop acting."""

    def __init__(self, message: str) -> None:
        super().__init__("LeaseLost", message)


@contextmanager
def translating() -> Iterator[None]:
    """Turn the database's errors into ours."""
    try:
        yield
    except OperationalError as error:
        raise Retryable(
            "DatabaseUnavailable", f"the database does not answer: {error.orig}"
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Retryable(
                "DatabaseUnavailable", "the connection to the database was cut"
            ) from error
        raise
