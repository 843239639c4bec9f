"""Constraint files: versions only, one a line, so that none can lead the resolver away."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import Requirement

from gitsource.requirement_lines import Kind, advice, without_comment

Constraint = tuple[int, str, str]
"""A line's number from 1, the constraint as parsed, what to write instead ("" if it is sound)."""


def constraints_of(text: str) -> Iterator[Constraint]:
    """Yield each line that holds something.

    A constraint is given as parsed, "" where it is none.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        wanted = without_comment(line)
        if not wanted:
            continue
        answer = advice(wanted, Kind.CONSTRAINT)
        yield number, "" if answer else str(Requirement(wanted)), answer
