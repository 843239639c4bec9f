"""Formats of `groundcrew export`, apart from what writes them: the command line starts fast."""

from __future__ import annotations

from enum import StrEnum


class LockFormat(StrEnum):
    """Formats that `export -o` accepts."""

    REQUIREMENTS = "requirements"
    PYLOCK = "pylock"
    UV = "uv"
