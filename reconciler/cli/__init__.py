"""Command line interface: `groundcrew`.

Each module contains one group of commands and imports what it needs only when a command runs, so
that `groundcrew validate` starts fast in a team's CI. Exit codes: 0 done, 1 problem found, 2
misuse, 3 unreachable.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; expected errors are printed on stderr."""
    from reconciler.cli.app import app
    from reconciler.cli.global_options import with_global_options_first

    try:
        app(with_global_options_first(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Exception as error:
        from reconciler.cli.messages import explain

        explained = explain(error)
        if explained is None:
            raise
        code, message = explained
        print(f"groundcrew: {message}", file=sys.stderr)  # noqa: T201 - the command line speaks
        return code
    return 0
