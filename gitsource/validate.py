"""Validation of a plain checkout in a team's own CI. Needs only the files."""

from __future__ import annotations

from pathlib import Path

from gitsource.assemble import FILE_LIMIT, assemble
from gitsource.models import API_VERSION
from gitsource.objects import kind_of_path
from gitsource.tree import Checkout
from reconciler.core.definitions import Commit, Definitions, Finding
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason


def validate(path: Path) -> tuple[Definitions, list[Finding]]:
    """Read the definitions below `path`. Raises Stalled if there are none to read."""
    if not path.is_dir():
        raise Stalled(
            Reason.SOURCE_MISSING, f"{path} is not a directory; give an environments repo"
        )
    if not any((path / part).is_dir() for part in ("instances", "teams")):
        raise Stalled(
            Reason.SOURCE_EMPTY,
            f"{path} has neither instances/ nor teams/; give the root of an environments repo",
        )
    definitions = assemble(Checkout(path), Commit("checkout"))
    return definitions, list(definitions.findings)


def misplaced(path: Path) -> list[str]:
    """Return files that look like definitions, but are where none is read.

    Only instances/, teams/ and shared/ are searched. It is not a mistake: any other file may be
    there too.
    """
    tree = Checkout(path)
    mark = f"apiVersion: {API_VERSION}".encode()
    messages = []
    for name, entry in tree.entries().items():
        if kind_of_path(name) is not None or not name.endswith((".yaml", ".yml")):
            continue
        if not name.startswith(("instances/", "teams/", "shared/")) or entry.size > FILE_LIMIT:
            continue
        if entry.mode.startswith("100") and mark in tree.read(entry):
            messages.append(
                f"{name} is not read: definitions are instances/NAME.yaml, shared/NAME.yaml and "
                f"teams/TEAM/NAME.yaml"
            )
    return messages
