"""Slow share: a FUSE file system that adds latency per round trip and per byte, and counts.

Needs /dev/fuse, fuse3, libfuse3-dev, pkg-config and a C compiler. A fresh mount behaves like a
client with cold caches.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).parent / "latency.c"


@dataclass(slots=True)
class Counts:
    """Requests made to a mount.

    `trips` and `by_kind` are filled when the mount ends; `asked` may be called while it exists.
    """

    log: Path
    trips: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)

    def asked(self) -> list[str]:
        """Return every round trip so far, as its kind and path."""
        return self.log.read_text().splitlines()


@functools.cache
def _program() -> str:
    """Return the path of the file system's program, compiled once per version of its source."""
    folder = Path(tempfile.gettempdir()) / f"groundcrew-latency-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    program = folder / f"latency-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if program.is_file():
        return str(program)
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True
    ).stdout
    made = folder / f".tmp-{os.getpid()}"
    subprocess.run(
        ["cc", "-O2", "-o", str(made), str(SOURCE), *shlex.split(flags), "-lpthread"], check=True
    )
    made.rename(program)
    return str(program)


@contextmanager
def mounted(source: Path, at: Path, *, trip: float, megabytes: float) -> Iterator[Counts]:
    """Mount `source` at `at` with a round trip of `trip` seconds and `megabytes` per second."""
    at.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        told, counts = Path(folder) / "counts.json", Counts(Path(folder) / "log")
        argv = [_program(), str(source), str(at), str(int(trip * 1e6)), f"{megabytes}", str(told)]
        argv.append(str(counts.log))
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not os.path.ismount(at):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the slow share could not be mounted; is FUSE allowed here?")
                time.sleep(0.01)
            yield counts
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(at)], check=False)
            process.wait(timeout=30)
            totals = json.loads(told.read_text()) if told.is_file() else {}
            counts.trips = int(totals.pop("trips", 0))
            counts.by_kind = totals
