"""Commands run on a separate terminal, as a person would see them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Terminal:
    """Output of a running command so far."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.shown = ""

    def read(self, seconds: float) -> bool:
        """Read what arrives within so many seconds; return False if the command closed its side."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def until(self, words: str, seconds: float = 60) -> str:
        """Return everything that was shown, once it contains `words`."""
        end = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < end, self.shown
            assert self.read(0.2) or words in self.shown, self.shown
        return self.shown

    def end(self, seconds: float = 60) -> int:
        """Return the exit code, once the command has ended."""
        end = time.monotonic() + seconds
        while self.read(0.2):
            assert time.monotonic() < end, self.shown
        return self.process.wait(seconds)


@contextmanager
def terminal(environment: Mapping[str, str], *words: str) -> Iterator[Terminal]:
    """Run a command of `groundcrew` on a terminal; it is ended with the block."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler.cli", *words],
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "50"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
