"""Validation of file names from an index, which become paths in the cache."""

from __future__ import annotations

import os

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

NAME_LIMIT = 255  # bytes of a file name, on every file system that matters


def is_file_name(name: str) -> bool:
    """Return True if a name from an index is a single, printable path component."""
    return (
        name.isprintable()
        and "/" not in name
        and "\\" not in name
        and name.strip(".") != ""
        and len(os.fsencode(name)) <= NAME_LIMIT
    )


def refuse_file_name(name: str) -> None:
    """Raise Stalled("UnsafeWheel") for a file name that could lead out of its folder."""
    if not is_file_name(name):
        raise Stalled(
            Reason.UNSAFE_WHEEL,
            f"the index names a file {name[:300]!r}, which is not a plain file name of at most "
            f"{NAME_LIMIT} bytes; have it removed from the index",
        )
