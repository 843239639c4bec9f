"""Failpoints: named places where a test can kill the process, as kill -9 would.

`GROUNDCREW_FAILPOINT=name` (or `name:N` for the N-th time it is passed) ends the process there
with code 137 and no clean-up; with `GROUNDCREW_FAILPOINT_FREEZES=1` it is stopped instead, as by
SIGSTOP, until someone sends SIGCONT. `GROUNDCREW_FAILPOINTS_FILE=path` appends each name as it is
passed, every time, so that a test can enumerate them. Without these variables a failpoint costs
one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

_lock = threading.Lock()
_passed: dict[str, int] = {}
_wanted, _hit, _file, _active, _freezes = "", 1, "", False, False


def arm(point: str, file: str = "", *, freezes: bool = False) -> None:
    """Die at `point` ("name" or "name:N", "" for never) and list passed failpoints in `file`.

    With `freezes`, stop there instead, with all threads.
    """
    global _wanted, _hit, _file, _active, _freezes
    _wanted, _, count = point.partition(":")
    _hit, _file, _freezes, _active = int(count or 1), file, freezes, bool(_wanted or file)
    _passed.clear()


def failpoint(name: str) -> None:
    """Die or freeze here if a test asked for it."""
    if not _active:
        return
    with _lock:
        _passed[name] = _passed.get(name, 0) + 1
        if _file:
            with Path(_file).open("a") as file:
                file.write(name + "\n")
        if name == _wanted and _passed[name] == _hit:
            if not _freezes:
                os._exit(137)
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # not one instruction later


arm(
    os.environ.get("GROUNDCREW_FAILPOINT", ""),
    os.environ.get("GROUNDCREW_FAILPOINTS_FILE", ""),
    freezes=bool(os.environ.get("GROUNDCREW_FAILPOINT_FREEZES")),
)
