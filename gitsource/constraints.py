"""Constraint files: only versions, one per line, so that they cannot redirect the resolver."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import Requirement

from gitsource.requirement_lines import Kind, advice, without_comment

Constraint = tuple[int, str, str]
"""A line's number from 1, the parsed constraint, and what to write instead ("" if it is valid)."""


def constraints_of(text: str) -> Iterator[Constraint]:
    """Yield each line that is not empty.

    A constraint is given as parsed, or "" if it is invalid.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        wanted = without_comment(line)
        if not wanted:
            continue
        answer = advice(wanted, Kind.CONSTRAINT)
        yield number, "" if answer else str(Requirement(wanted)), answer
