"""Locks between builders and the garbage collector, in any process.

A build may reuse a store entry that nothing names yet; so nothing is collected while one is being
put on the share. The lock is a file on the share (flock works on NFSv4) and ends with its holder.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from reconciler.share.atomic import translating

FILE = ".collecting"
PATIENCE = 120.0  # seconds that a builder waits for a collection to end
LOOK_AGAIN = 0.2


@contextmanager
def making(root: Path) -> Iterator[None]:
    """Hold off garbage collection. Raises Retryable("GarbageCollection") if one takes too long."""
    with _held(root, fcntl.LOCK_SH, PATIENCE) as got:
        if not got:
            raise Retryable(Reason.GARBAGE_COLLECTION, "garbage is being collected; building later")
        yield


@contextmanager
def collecting(root: Path) -> Iterator[None]:
    """Hold off builds during a collection. Raises Retryable("BuildsRunning") if one is running."""
    with _held(root, fcntl.LOCK_EX, 0.0) as got:
        if not got:
            raise Retryable(Reason.BUILDS_RUNNING, "a build is being placed; collecting later")
        yield


@contextmanager
def _held(root: Path, kind: int, patience: float) -> Iterator[bool]:
    deadline = time.monotonic() + patience
    with translating(f"locking the share {root}"):
        handle = os.open(root / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not (got := _taken(handle, kind, root)) and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN)
        yield got
    finally:
        os.close(handle)


def _taken(handle: int, kind: int, root: Path) -> bool:
    with translating(f"locking the share {root}"):
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
