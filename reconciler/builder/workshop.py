"""Where a build's commands run: a sandbox on this machine, or a Job in the instance's own image."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.builder.job import Job
from reconciler.builder.proxy import Indexes


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended; `output` is standard output and error together, the newest part."""

    code: int
    output: str
    timed_out: bool = False


class Workshop(Protocol):
    """Runs what is not trusted.

    What teams share is made by `harmless` commands only, those that run nobody's code; they are
    kept apart from all others.
    """

    def scratch(self, job: Job, *, harmless: bool) -> Path:
        """Where a build works: commands of that kind see and write it at that path."""

    def leave(self, job: Job) -> None:
        """Nothing more is run for this build just now."""

    def uv(self) -> str:
        """The uv that commands find, as a path in the workshop."""

    def direct(self, indexes: Indexes) -> bool:
        """May uv read the default index itself."""

    def cache_of(self, team: str) -> Path:
        """Where uv caches for a team in the workshop, "" for all teams."""

    def serving(self, indexes: Indexes, work: Path) -> AbstractContextManager[str]:
        """Serve indexes to commands that are run with `index=work`; gives the URL for them."""

    def may_show(self, folder: Path) -> bool:
        """May commands read this folder: it neither lies in a hidden place nor has one in it."""

    def run(
        self,
        job: Job,
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
        """Run a command to its end; its output goes to the job's log as it comes, unless `quiet`.

        Output is for people: lines may be cut, and warnings stand among them. Programs answer in
        `results`, files or folders below `work`; what the command left there can be read when this
        returns, however late a share shows new files.

        `work` is the command's own folder: it may leave anything there, so nothing is written to it
        afterwards and results are read by `read_result`. `index` is the folder in which indexes
        are served (see `serving`). `network` is for commands that run nobody's code. `timeout` is
        in seconds. Raises Cancelled when the job is cancelled, Retryable when the workshop is lost.
        """


def read_result(path: Path, limit: int) -> bytes | None:
    """What a command left in a file, up to `limit` bytes; None when it left no regular file.

    A link is not followed: it could point to what only the daemon may read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(limit) if stat.S_ISREG(os.fstat(handle).st_mode) else None
