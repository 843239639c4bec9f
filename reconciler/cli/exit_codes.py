"""Exit codes, and the error for misuse of a command."""

from __future__ import annotations

from reconciler.core.reasons import Exit

__all__ = ["Exit", "Misuse"]


class Misuse(Exception):
    """Error for misuse of a command; the message says how to use it."""
