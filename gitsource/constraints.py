"""Constraint files: versions only, one a line, so that none can lead the resolver away."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement

LINE_LIMIT = 4096  # characters; what parses a line may take longer than in proportion to it


Constraint = tuple[int, str, str]
"""A line's number from 1, the constraint as parsed, and what is wrong with it ("" if nothing)."""


def constraints_of(text: str) -> Iterator[Constraint]:
    """(line from 1, constraint, what is wrong with it) of each line that holds one.

    A constraint is given as parsed, "" where it is none.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        wanted = _without_comment(line)
        if not wanted:
            continue
        if len(wanted) > LINE_LIMIT:
            yield number, "", f"longer than {LINE_LIMIT} characters; write one constraint a line"
            continue
        try:
            parsed = Requirement(wanted)
        except InvalidRequirement:
            yield number, "", _wrong(wanted)
            continue
        if parsed.url is not None:
            yield number, "", f"an address; write name==version instead of {parsed.name} @ …"
        elif parsed.extras:
            yield number, "", f"extras; write {parsed.name}{parsed.specifier} without them"
        elif not str(parsed).isprintable():
            yield number, "", "a control character; write name==version"
        else:
            yield number, str(parsed), ""


def _without_comment(line: str) -> str:
    """Return a line without its comment, which begins with a # at the start or after a space."""
    begin = line.find("#")
    while begin > 0 and not line[begin - 1].isspace():
        begin = line.find("#", begin + 1)
    return (line if begin < 0 else line[:begin]).strip()


def _wrong(wanted: str) -> str:
    if wanted.startswith("-"):
        return "an option; a constraint is a line such as numpy<2 (indexes belong into `indexes`)"
    if wanted.endswith("\\"):
        return "a line that goes on in the next; write each constraint in one line"
    if " --" in wanted:
        return "an option; write name==version alone, as the lock has the hashes"
    return "no constraint; write a line such as numpy<2"
