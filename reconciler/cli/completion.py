"""Shell completion of recorded names: as fast as possible, and never with an error."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from reconciler.api import contract


def objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching environment/NAME and instance/NAME."""
    from reconciler.cli.objects import known

    status = _status(ctx)
    return [n for n in known(status) if n.startswith(incomplete)] if status else []


def instances(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of instances."""
    status = _status(ctx)
    names = [one.name for one in status.instances] if status else []
    return [name for name in names if name.startswith(incomplete)]


def environments(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of environments."""
    status = _status(ctx)
    names = [one.name for one in status.environments] if status else []
    return [name for name in names if name.startswith(incomplete)]


def logged(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of environments, environment/NAME and instance/NAME."""
    from reconciler.cli.objects import known

    status = _status(ctx)
    names = [*(one.name for one in status.environments), *known(status)] if status else []
    return [name for name in names if name.startswith(incomplete)]


def kinds(incomplete: str) -> list[str]:
    """Return the matching kinds of events."""
    from reconciler.core.events import EventKind

    return sorted(kind for kind in EventKind if kind.startswith(incomplete))


def _status(ctx: typer.Context) -> contract.Status | None:
    """Return the status, or None for any error: shells expect no messages from here."""
    try:
        given = ctx.find_root().params
        for option, variable in (("config", "GROUNDCREW_CONFIG"), ("server", "GROUNDCREW_SERVER")):
            if given.get(option):
                os.environ[variable] = str(given[option])
        from reconciler.cli.sources.choice import opened

        with opened() as source:
            return source.status()
    except Exception:
        return None
