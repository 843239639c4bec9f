"""Names of objects on the command line: `environment/NAME`, `instance/NAME`, or a unique NAME."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from reconciler.cli.exit_codes import Misuse

if TYPE_CHECKING:
    from reconciler.api import contract

ENVIRONMENT = "environment"
INSTANCE = "instance"
NAMED = 12  # objects that a message lists


def known(status: contract.Status) -> list[str]:
    """Return every object by its full name."""
    return [f"{ENVIRONMENT}/{e.name}" for e in status.environments] + [
        f"{INSTANCE}/{i.name}" for i in status.instances
    ]


def find(status: contract.Status, said: str, kinds: Sequence[str] = (ENVIRONMENT, INSTANCE)) -> str:
    """Return the full name of the object that `said` means. Raises Misuse unless it is unique."""
    names = [name for name in known(status) if name.partition("/")[0] in kinds]
    return choose(names, said, " or ".join(kinds))


def choose(names: Sequence[str], said: str, kind: str) -> str:
    """Return the one of `names` (`kind/name`) that `said` means. Raises Misuse with suggestions."""
    if said in names:
        return said
    matches = [name for name in names if name.partition("/")[2] == said]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise Misuse(f"{said} is {' and '.join(matches)}; give one of these names")
    short = {name.partition("/")[2]: name for name in names}
    close = get_close_matches(said, names, 1) or [
        short[n] for n in get_close_matches(said.rpartition("/")[2], short, 1)
    ]
    if close:
        raise Misuse(f"no {kind} {said}; did you mean {close[0]}?")
    if not names:
        raise Misuse(f"no {kind} yet")
    shown = ", ".join(names[:NAMED])
    more = len(names) - NAMED
    rest = f" and {more} more" if more > 0 else ""
    raise Misuse(f"no {kind} {said}; there are {shown}{rest}")
