"""Options and arguments that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.output import Format

SHORT = 10  # digits of a revision that are shown to people

Output = Annotated[Format, typer.Option("-o", "--output", help="Output format.")]
SomeObject = Annotated[
    str | None,
    typer.Argument(
        help="environment/NAME, instance/NAME or NAME; if absent, all.",
        autocompletion=completion.objects,
    ),
]
