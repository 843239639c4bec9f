"""Worker processes for reading what others wrote, each with limits of CPU time and memory.

A parser may take far longer than in proportion to its input, and a long call into C holds up every
thread of its process. So definitions, constraints and index pages are read by functions that run in
a process of their own. One that uses too much is killed, and its caller alone gets TooExpensive.
The processes are kept for the next call: a call costs about a millisecond.
"""

from __future__ import annotations

import atexit
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from reconciler.core.errors import Retryable, Stalled

CPU_LIMIT = 5  # seconds of one call
WALL_LIMIT = 120.0  # seconds of one call on a machine where much else is going on
SIZE = 2  # processes of a pool
HEADER = struct.Struct(">Q")  # bytes of the message that follows
TOO_EXPENSIVE = "TooExpensive"

P = ParamSpec("P")
R = TypeVar("R")


class TooExpensive(Stalled):
    """What was read used more CPU time or memory than reading it may."""

    def __init__(self, message: str) -> None:
        super().__init__(TOO_EXPENSIVE, message)


class Failed(Exception):
    """An unexpected exception of a function that ran in a worker; the message is its traceback."""


class Pool:
    """Up to `size` workers; safe to use from several threads.

    Functions are given by reference, so they have to be importable by name, and arguments and
    results are pickled. The workers run this project's own code only.
    """

    def __init__(self, size: int = SIZE, cpu_limit: int = CPU_LIMIT) -> None:
        self.size = size
        self.cpu_limit = cpu_limit
        self._room = threading.BoundedSemaphore(size)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in a worker and return its result; raises TooExpensive."""
        request = pickle.dumps((self.cpu_limit, function, args, kwargs))
        with self._room:
            worker = self._take()
            try:
                answer = worker.ask(request)
            except BaseException:
                worker.kill()
                raise
            self._give_back(worker)
        kind, found = answer
        if kind == "done":
            result: R = found
            return result
        if kind == "memory":
            raise TooExpensive("it needs more memory than reading it may use")
        raise Failed(found)

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Worker()

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
                return
        worker.kill()

    def close(self) -> None:
        """End the workers that are idle now, and those that are busy after their call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()


@cache
def shared_pool() -> Pool:
    """Return the pool that all readers of this process share; it ends with the process."""
    pool = Pool()
    atexit.register(pool.close)
    return pool


class _Worker:
    """One process that answers one call after the other; it ends when its input does."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[1])
        kept = {k: os.environ[k] for k in ("PATH", "TZDIR", "LD_LIBRARY_PATH") if k in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "reconciler.isolated"],
                env={**kept, "PYTHONPATH": root, "LANG": "C.UTF-8"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )
        except OSError as error:
            raise Retryable(
                "NoProcess", f"a process for reading cannot be started ({error.strerror})"
            ) from error

    def ask(self, request: bytes) -> tuple[str, Any]:
        """Send a request and return its answer; raises TooExpensive if the process is killed."""
        timer = threading.Timer(WALL_LIMIT, self._process.kill)
        timer.daemon = True
        timer.start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(HEADER.pack(len(request)) + request)
            stdin.flush()
            header = stdout.read(HEADER.size)
            size = HEADER.unpack(header)[0] if len(header) == HEADER.size else -1
            answer = stdout.read(size) if size >= 0 else b""
        except OSError:
            size, answer = -1, b""
        finally:
            timer.cancel()
        if len(answer) != size:
            raise TooExpensive("it takes more CPU time or memory than reading it may use")
        found: tuple[str, Any] = pickle.loads(answer)  # noqa: S301 - our own process
        return found

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()
