"""Options of `groundcrew` itself, which may also be written after the command."""

from __future__ import annotations

from collections.abc import Sequence

GLOBAL_OPTIONS = ("--config", "--server")
"""Each takes a value; no command has an option of the same name."""


def with_global_options_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in the order that the parser needs: `--server URL status`.

    Nothing is moved from behind `--`, and no option that lacks its value.
    """
    first: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left and left[0] != "--":
        argument = left.pop(0)
        if argument in GLOBAL_OPTIONS and left and not left[0].startswith("-"):
            first += [argument, left.pop(0)]
        elif argument.partition("=")[0] in GLOBAL_OPTIONS and "=" in argument:
            first.append(argument)
        else:
            rest.append(argument)
    return [*first, *rest, *left]
