"""Failpoints: named places where a test can kill the process, as kill -9 would.

`GROUNDCREW_FAILPOINT=name` (or `name:N` for the N-th time it is passed) ends the process there
with code 137 and no clean-up. `GROUNDCREW_FAILPOINTS_FILE=path` appends each distinct name as it is
passed, so that a test can enumerate them. Without these variables a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_WANTED, _, _COUNT = os.environ.get("GROUNDCREW_FAILPOINT", "").partition(":")
_HIT = int(_COUNT or 1)
_FILE = os.environ.get("GROUNDCREW_FAILPOINTS_FILE", "")
_ACTIVE = bool(_WANTED or _FILE)
_lock = threading.Lock()
_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Die here if a test asked for it."""
    if not _ACTIVE:
        return
    with _lock:
        _passed[name] = _passed.get(name, 0) + 1
        if _FILE and _passed[name] == 1:
            with Path(_FILE).open("a") as file:
                file.write(name + "\n")
        if name == _WANTED and _passed[name] == _HIT:
            os._exit(137)
