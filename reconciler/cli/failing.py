"""How a command may end badly."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    WRONG = 1
    MISUSE = 2
    UNREACHABLE = 3


class Misuse(Exception):
    """The command was used wrongly; the message says how to use it."""
