"""Errors of the local disk on which builds are prepared."""

from __future__ import annotations

import errno
import os

from reconciler.builder.executor.protocol import Ended
from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.core.reasons import Reason

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FULL_TEXTS = (*(os.strerror(number).lower() for number in FULL), "database or disk is full")
"""Texts by which programs say that the disk is full; the last one is SQLite's."""


def disk_error(error: OSError) -> GroundcrewError:
    """Return the error for a problem of the local disk."""
    if error.errno in FULL:
        return disk_full()
    return Retryable(Reason.DISK_ERROR, f"the local build disk: {error.strerror or error}")


def disk_full() -> Retryable:
    """Return the error for a full build disk."""
    return Retryable(
        Reason.DISK_FULL,
        "the local build disk is full; free space below the cache directory (builder.cache_dir)",
    )


def tells_of_full_disk(text: str) -> bool:
    """Return True if an error's text says that the disk is full."""
    lowered = text.lower()
    return any(full in lowered for full in FULL_TEXTS)


def ran_out_of_disk(ended: Ended) -> bool:
    """Return True if a command failed because the disk is full, according to its output."""
    return ended.code != 0 and tells_of_full_disk(ended.output)
