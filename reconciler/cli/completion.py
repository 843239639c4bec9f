"""Shell completion of recorded names: as fast as possible, and never with an error."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from reconciler.core.model import Records


def objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching environment/NAME and instance/NAME."""
    from reconciler.cli.objects import known

    records = _records(ctx)
    return [n for n in known(records) if n.startswith(incomplete)] if records else []


def instances(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of instances."""
    records = _records(ctx)
    return [n for n in sorted(records.instances) if n.startswith(incomplete)] if records else []


def environments(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the matching names of environments."""
    records = _records(ctx)
    return [n for n in sorted(records.environments) if n.startswith(incomplete)] if records else []


def kinds(incomplete: str) -> list[str]:
    """Return the matching kinds of events."""
    from reconciler.core.events import EventKind

    return sorted(kind for kind in EventKind if kind.startswith(incomplete))


def _records(ctx: typer.Context) -> Records | None:
    """Return the records, or None for any error: shells expect no messages from here."""
    try:
        config = ctx.find_root().params.get("config")
        if config:
            os.environ["GROUNDCREW_CONFIG"] = str(config)
        from reconciler.daemon.open_records import current
        from reconciler.settings import Settings

        return current(Settings())
    except Exception:
        return None
