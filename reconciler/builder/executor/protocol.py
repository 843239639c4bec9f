"""Executor for a build's commands: a local sandbox, or a Job with the instance's own image."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.builder.build_job import BuildJob
from reconciler.builder.index.proxy import Indexes

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # the second if a shell or bwrap reports it


@dataclass(frozen=True, slots=True)
class Ended:
    """Result of a process; `output` is the newest part of standard output and error together."""

    code: int
    output: str
    timed_out: bool = False

    @property
    def was_killed(self) -> bool:
        """Return True if it was killed from outside: most likely memory ran out."""
        return not self.timed_out and self.code in KILLED

    @property
    def manner(self) -> str:
        """The way in which the process ended, as a part of a sentence."""
        if self.timed_out:
            return "took too long"
        if self.was_killed:
            return "was killed, most likely because it needed more memory than there was"
        return f"ended with code {self.code}"


class Executor(Protocol):
    """Environment that runs untrusted commands.

    What teams share is created by `harmless` commands only, which run nobody's code; they are kept
    separate from all others.
    """

    def scratch(self, job: BuildJob, *, harmless: bool) -> Path:
        """Return a build's folder: commands of that kind see and write it at that path."""

    def leave(self, job: BuildJob) -> None:
        """End the work for this build for now."""

    def uv(self) -> str:
        """Return the uv that commands find, as a path in the executor."""

    def direct(self, indexes: Indexes) -> bool:
        """Return True if uv may read the default index itself."""

    def cache_of(self, team: str) -> Path:
        """Return uv's cache for a team in the executor, "" for all teams."""

    def serving(self, indexes: Indexes, work: Path) -> AbstractContextManager[str]:
        """Serve indexes to commands that are run with `index=work`; yield the URL for them."""

    def may_show(self, folder: Path) -> bool:
        """Return True if commands may read this folder: it is in no hidden one, nor has one."""

    def run(
        self,
        job: BuildJob,
        command: Sequence[str],
        *,
        work: Path,
        timeout: float,
        writable: Sequence[Path] = (),
        readable: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        index: Path | None = None,
        network: bool = False,
        harmless: bool = False,
        quiet: bool = False,
        results: Sequence[Path] = (),
    ) -> Ended:
        """Run a command to its end; its output goes to the job's log as it arrives, unless `quiet`.

        Output is for people: lines may be cut, and may be mixed with warnings. Programs return data
        in `results`, files or folders below `work`; what the command wrote there can be read when
        this returns, however late a share shows new files.

        `work` is the command's own folder: it may leave anything there, so nothing is written to it
        afterwards and results are read by `read_result`. `index` is the folder in which indexes are
        served (see `serving`). `network` is for commands that run nobody's code. `timeout` is in
        seconds. Raises Cancelled if the job is cancelled, Retryable if the executor is lost.
        """


def read_result(path: Path, limit: int) -> bytes | None:
    """Return a command's result file, up to `limit` bytes, or None if it is not a regular file.

    A link is not followed: it could point to something that only the daemon may read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(limit) if stat.S_ISREG(os.fstat(handle).st_mode) else None
