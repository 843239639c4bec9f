"""Errors of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason

DAMAGED = ("file is not a database", "malformed", "disk image")


class Conflict(Retryable):
    """Another writer changed a row in between: read and decide again."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.CONFLICT, message, after=0.1)


class DatabaseUnavailable(Retryable):
    """The database does not respond: it is down, restarting, or locked by another program."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.DATABASE_UNAVAILABLE, message)


class LeaseLost(Retryable):
    """The lease was taken over or has expired: stop acting."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.LEASE_LOST, message)


@contextmanager
def translating(url: str) -> Iterator[None]:
    """Translate errors of the database at `url` (without a password) into those of this module."""
    try:
        yield
    except OperationalError as error:
        raise DatabaseUnavailable(f"the database does not answer: {error.orig}") from error
    except PoolTimeout as error:
        raise DatabaseUnavailable("every connection to the database is in use") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnavailable("the connection to the database was cut") from error
        if any(mark in str(error.orig) for mark in DAMAGED):
            raise Stalled(
                Reason.DATABASE_DAMAGED,
                f"{url} is damaged or no database ({error.orig}); move it away: an empty database "
                f"beside a full share adopts what is there, or restore a backup",
            ) from error
        raise
