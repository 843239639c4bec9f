"""Command `groundcrew validate`: needs only a checkout of the environments repo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.options import Output
from reconciler.cli.output import (
    Format,
    finding_line,
    print_document,
    say,
    warn,
)
from reconciler.core.reasons import Reason


def validate(
    path: Annotated[
        Path, typer.Argument(help="Root of a checkout of the environments repo.")
    ] = Path(),
    output: Output = Format.TABLE,
) -> None:
    """Check every definition of an environments repo; exit 1 if one has a mistake.

    Each mistake is printed as file:line:column: [Reason] object: message. No settings, no daemon
    and no network are needed, so a team can run this in its own CI.
    """
    from gitsource.validate import misplaced
    from gitsource.validate import validate as read
    from reconciler.api.documents import finding_document
    from reconciler.core.errors import Stalled

    try:
        definitions, findings = read(path)
    except Stalled as error:
        if error.reason in (Reason.SOURCE_MISSING, Reason.SOURCE_EMPTY):
            raise Misuse(error.message) from error
        raise
    for message in misplaced(path):
        warn(message)
    if output is not Format.TABLE:
        print_document([finding_document(f) for f in findings], output)
    else:
        for finding in findings:
            say(finding_line(finding))
        environments = _counted(len(definitions.environments), "environment")
        instances = _counted(len(definitions.instances), "instance")
        counted = f"{environments} and {instances} without mistakes"
        mistakes = _counted(len(findings), "mistake")
        warn(f"{mistakes}; {counted}" if findings else counted)
    if findings:
        raise typer.Exit(Exit.WRONG)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
