"""Progress display: a transient line on stderr while a command works, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reconciler.cli.output import plain

Tell = Callable[..., None]
"""Function called as `tell(words="", done=0)`: the current activity, and newly finished items."""


@contextmanager
def working(words: str, total: int | None = None) -> Iterator[Tell]:
    """Show `words` with the elapsed time, and a bar if there is a total.

    Nothing is shown if stderr is not a terminal. Used from several threads.
    """
    if not sys.stderr.isatty():
        yield lambda *_, **__: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    counted = (BarColumn(bar_width=24), MofNCompleteColumn()) if total is not None else ()
    text = TextColumn("{task.description}", markup=False)
    with Progress(
        SpinnerColumn(),
        text,
        *counted,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(plain(words), total=total)

        def tell(words: str = "", done: int = 0) -> None:
            bar.update(task, description=plain(words) if words else None)
            bar.advance(task, done)

        yield tell
