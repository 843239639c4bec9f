"""Names that the shell completes: what is recorded, read as quickly as can be, never an error."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from reconciler.core.model import Records


def objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """environment/NAME and instance/NAME."""
    from reconciler.cli.objects import known

    records = _records(ctx)
    return [n for n in known(records) if n.startswith(incomplete)] if records else []


def instances(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of instances."""
    records = _records(ctx)
    return [n for n in sorted(records.instances) if n.startswith(incomplete)] if records else []


def environments(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of environments."""
    records = _records(ctx)
    return [n for n in sorted(records.environments) if n.startswith(incomplete)] if records else []


def _records(ctx: typer.Context) -> Records | None:
    """What is recorded; None whatever stands in the way: a shell wants no words from here."""
    try:
        config = ctx.find_root().params.get("config")
        if config:
            os.environ["GROUNDCREW_CONFIG"] = str(config)
        from reconciler.daemon.reading import current
        from reconciler.settings import Settings

        return current(Settings())
    except Exception:
        return None
