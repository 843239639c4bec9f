"""Worker processes with limits of CPU time and memory, for parsing input from others.

A parser may take far longer than in proportion to its input, and a long call into C holds up every
thread of its process. So definitions, constraints, index pages, listings and metadata of wheels,
and the reports of verifications are read by functions that run in a separate process. A worker that
uses too much is killed, and only its caller gets TooExpensive. The processes are kept for the next
call: a call costs about a millisecond.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason

RESULT_LIMIT = 256 << 20  # bytes of a pickled result
HEADER = struct.Struct(">Q")  # bytes of the message that follows
CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)
"""Signals by which a process ends because of what it does itself."""
ENDING = 30.0  # seconds in which a process that closed its output has ended

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Limits:
    """Processes of a pool, and seconds of CPU time and of elapsed time of one call.

    Elapsed time is generous, so that a busy machine refuses nothing that an idle one takes.
    """

    size: int = 2
    cpu: int = 5
    elapsed: float = 120.0


UNPACKING = Limits(size=2 * (os.cpu_count() or 1), cpu=600, elapsed=3600.0)


class TooExpensive(Stalled):
    """Reading an input used more CPU time or memory than allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.TOO_EXPENSIVE, message)


class Failed(Exception):
    """An unexpected exception of a function that ran in a worker; the message is its traceback."""


class Pool:
    """Workers that share a task and its limits; safe to use from several threads.

    Functions are given by reference, so they have to be importable by name, and arguments and
    results are pickled. The workers run this project's own code only. Errors that the project
    expects come back as they were raised.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._room = threading.BoundedSemaphore(self.limits.size)
        self._teams: dict[str, threading.BoundedSemaphore] = {}
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def call_for(self, team: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function for a team, which may use at most half of the workers at a time."""
        with self._lock:
            half = max(1, self.limits.size // 2)
            share = self._teams.setdefault(team, threading.BoundedSemaphore(half))
        with share:
            return self.call(function, *args, **kwargs)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in a worker and return its result. Raises TooExpensive."""
        request = pickle.dumps((self.limits.cpu, function, args, kwargs))
        with self._room:
            worker = self._take()
            try:
                answer = worker.ask(request, self.limits.elapsed)
            except BaseException:
                worker.kill()
                raise
            self._give_back(worker)
        kind, payload = answer
        match kind:
            case "done":
                result: R = payload
                return result
            case "memory":
                raise TooExpensive("it needs more memory than reading it may use")
            case "refused":
                raise payload
            case _:
                raise Failed(payload)

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
        """End the idle workers now, and the busy ones after their call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()


@cache
def shared_pool(task: Literal["definitions", "builds", "unpacking"]) -> Pool:
    """Return the pool for one task of this process; it ends with the process.

    Each task has its own pool, so that no task waits for another.
    """
    pool = Pool(UNPACKING if task == "unpacking" else None)
    atexit.register(pool.close)
    return pool


def read_for(team: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a reader for a build of a team; raises TooExpensive, and what the reader raises."""
    return shared_pool("builds").call_for(team, function, *args, **kwargs)


class _Worker:
    """Process that answers one call after another; it ends when its input does."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[1])
        kept = {k: os.environ[k] for k in ("PATH", "TZDIR", "LD_LIBRARY_PATH") if k in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "reconciler.isolated_worker"],
                env={**kept, "PYTHONPATH": root, "LANG": "C.UTF-8"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # Ctrl-C in a terminal is for the daemon
            )
        except OSError as error:
            raise Retryable(
                Reason.NO_PROCESS, f"a process for reading cannot be started ({error.strerror})"
            ) from error

    def ask(self, request: bytes, elapsed_limit: float) -> tuple[str, Any]:
        """Send a request and return its answer.

        Raises TooExpensive if the request ended the process, and Retryable if something else did.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(elapsed_limit, end)
        timer.daemon = True
        timer.start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        size, answer = -1, b""
        try:
            stdin.write(HEADER.pack(len(request)) + request)
            stdin.flush()
            header = stdout.read(HEADER.size)
            size = HEADER.unpack(header)[0] if len(header) == HEADER.size else -1
            answer = stdout.read(size) if 0 <= size <= RESULT_LIMIT else b""
        except OSError:
            pass  # it has ended
        finally:
            timer.cancel()
        if size > RESULT_LIMIT:
            raise TooExpensive(f"what is read of it is larger than {RESULT_LIMIT >> 20} MiB")
        if len(answer) != size:
            if late.is_set():
                raise TooExpensive(f"reading it takes longer than {elapsed_limit:.0f} s")
            raise _why_ended(self._process.wait(ENDING))
        response: tuple[str, Any] = pickle.loads(answer)  # noqa: S301 - our own process
        return response

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()


def _why_ended(code: int) -> GroundcrewError:
    """Return the error for a worker that ended while it had a request."""
    if code == -signal.SIGXCPU:
        return TooExpensive("it takes more CPU time than reading it may use")
    if -code in CRASHES:
        return TooExpensive(f"reading it crashes the process ({signal.Signals(-code).name})")
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    return Retryable(
        Reason.WORKER_LOST, f"the process that was reading it was ended from outside ({how})"
    )
