"""Processes on this machine that have an instance's loader.

Another Groundcrew on this machine, or a container, may have an instance of the same name on its own
share. So a path is compared as the process itself sees it. "Unknown" is a separate answer: a caller
that protects builds treats it as yes, one that blames a build as no.
"""

from __future__ import annotations

import os
from pathlib import Path


def has_loader(pid: int, python_path: str, share: Path | None, name: str) -> bool | None:
    """Return whether a process with this PYTHONPATH has the loader of instance `name` on `share`.

    None if there is a loader of that name whose share cannot be determined; any share counts if
    `share` is None.
    """
    loader = f"instances/{name}/loader"
    entries = [e for e in python_path.split(os.pathsep) if e.rstrip("/").endswith(f"/{loader}")]
    if not entries:
        return False
    if share is None:
        return True
    answers = {_is_same(_seen_by(pid, entry), share / loader) for entry in entries}
    if True in answers:
        return True
    return None if None in answers else False


def _seen_by(pid: int, path: str) -> Path:
    """Return `path` as seen through the process's own root or working directory."""
    start = "root" if path.startswith("/") else "cwd"
    return Path(f"/proc/{pid}/{start}") / path.lstrip("/")


def _is_same(one: Path, other: Path) -> bool | None:
    try:
        return one.samefile(other)
    except OSError:
        return None
