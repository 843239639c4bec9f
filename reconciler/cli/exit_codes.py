"""Exit codes, and the error for misuse of a command."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit code of a command."""

    DONE = 0
    WRONG = 1
    MISUSE = 2
    UNREACHABLE = 3


class Misuse(Exception):
    """Error for misuse of a command; the message says how to use it."""
