"""Readers of output from builds' commands, in worker processes (see reconciler.isolation)."""

from __future__ import annotations

import contextlib
from typing import TypeVar

from pydantic import BaseModel

from reconciler.builder.verify.report import DagErrors
from reconciler.documents import Malformed, parse
from reconciler.isolation import TooExpensive, read_for

M = TypeVar("M", bound=BaseModel)


def read_document(team: str, kind: type[M], data: bytes, what: str) -> M:
    """Parse JSON as a `kind`. Raises Malformed, also if reading it takes too much."""
    try:
        return read_for(team, parse, kind, data, what)
    except TooExpensive as error:
        raise Malformed(f"{what} cannot be read: {error.message}") from error


def read_dag_errors(team: str, printed: bytes) -> dict[str, str] | None:
    """Return import errors by file as Airflow printed them, or None if it printed no list."""
    try:
        return read_for(team, _dag_errors, printed)
    except TooExpensive:
        return None


def _dag_errors(printed: bytes) -> dict[str, str] | None:
    """Return the errors; some versions print more on the same output, the list on one line."""
    lines = printed.decode(errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith("["):
            with contextlib.suppress(Malformed):
                rows = parse(DagErrors, line, "Airflow's list of import errors").root
                return {row.filepath: row.error for row in rows}
    return {} if any("No data found" in line for line in lines) else None
