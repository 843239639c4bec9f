"""Validate a plain checkout: what a team runs in its own CI. Needs nothing but the files."""

from __future__ import annotations

from pathlib import Path

from gitsource.assemble import assemble
from gitsource.tree import Checkout
from reconciler.core.definitions import Commit, Definitions, Finding
from reconciler.core.errors import Stalled


def validate(path: Path) -> tuple[Definitions, list[Finding]]:
    """Read the definitions below `path`; raises Stalled when there are none to read."""
    if not path.is_dir():
        raise Stalled("SourceMissing", f"{path} is not a directory; give an environments repo")
    if not any((path / part).is_dir() for part in ("instances", "teams")):
        raise Stalled(
            "SourceEmpty",
            f"{path} has neither instances/ nor teams/; give the root of an environments repo",
        )
    definitions = assemble(Checkout(path), Commit("checkout"))
    return definitions, list(definitions.findings)
