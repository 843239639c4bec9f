"""Running what is not trusted: bubblewrap where it works, limits and a scrubbed environment always.

The file system is read-only but for the job's own folder and the given writable ones; secrets, the
daemon's settings and state, homes, temporary folders and the sockets in these and in /run are
hidden; there is no network but for the package index that is carried in; the process group ends
with its time limit or the job's cancellation.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path

from reconciler.builder import hiding
from reconciler.builder.job import Job
from reconciler.builder.proxy import INSIDE_PORT, Indexes
from reconciler.builder.uv import uv_path
from reconciler.builder.workshop import Ended
from reconciler.core.errors import Stalled
from reconciler.settings import BuilderSettings

OUTPUT_LIMIT = 4 << 20  # bytes kept of a process's output
LINE_LIMIT = 64 << 10  # bytes; a longer line is told in pieces
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("https_proxy", "http_proxy", "no_proxy")  # with credentials, which uv needs
INDEX = "index"  # of a job's folder: where its indexes are served


@functools.cache
def bubblewrap_works() -> bool:
    """Is bwrap there, and may it make namespaces here."""
    if shutil.which("bwrap") is None:
        return False
    try:
        done = subprocess.run(
            ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-pid", "true"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class Sandbox:
    """The workshop on this machine; `hidden` are places that commands must not see."""

    def __init__(self, settings: BuilderSettings, cache: Path, hidden: Sequence[Path]) -> None:
        self._settings = settings
        self._cache = cache
        self._hidden = hidden
        self.wrapped = settings.sandbox != "off" and bubblewrap_works()
        if settings.sandbox == "require" and not self.wrapped:
            raise Stalled(
                "SandboxMissing",
                "builder.sandbox is `require`, but bubblewrap is not installed or may not make "
                "namespaces here; install bubblewrap, or set it to `auto`",
            )

    def scratch(self, job: Job, *, harmless: bool) -> Path:
        """One folder for all: each command sees its own part of it only."""
        del job, harmless
        path = self._cache / "work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def leave(self, job: Job) -> None:
        """Nothing is kept between commands."""

    def uv(self) -> str:
        """The uv that is installed beside this program."""
        return uv_path()

    def direct(self, indexes: Indexes) -> bool:
        """May uv read the default index itself: it then has the network."""
        return indexes.plain

    def cache_of(self, team: str) -> Path:
        """Where uv caches; a build script may write to its team's only."""
        path = self._cache / (f"uv-teams/{team}" if team else "uv")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def serving(self, indexes: Indexes, work: Path) -> AbstractContextManager[str]:
        """Serve indexes to commands that are run with `index=work`; gives the URL for them."""
        if not self.wrapped:
            return indexes.serve(None)
        (work / INDEX).mkdir()
        return indexes.serve(work / INDEX)

    def may_show(self, folder: Path) -> bool:
        """May commands read this folder; see Workshop. Without bubblewrap nothing is hidden."""
        return not self.wrapped or not hiding.lays_bare(folder, self._hidden)

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
        """Run a command to its end; see Workshop."""
        del harmless, results  # each command has namespaces of its own, and this machine's disk
        temp = work / "tmp"
        temp.mkdir(parents=True, exist_ok=True)
        variables = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(work),
            "TMPDIR": str(temp),
            "LANG": "C.UTF-8",
            "SOURCE_DATE_EPOCH": "315532800",  # 1980: the oldest time that a zip can hold
            **_of_environment(CERTIFICATES),
            **(_of_environment(PROXIES) if network else {}),
            **(environment or {}),
        }
        words = [*self._limits(timeout), *command]
        if index is not None and self.wrapped:
            with resources.as_file(resources.files("reconciler.builder") / "carry.py") as carry:
                words = [
                    sys.executable, "-I", str(carry), str(INSIDE_PORT), str(index / INDEX), *words,
                ]  # fmt: skip
            readable = [*readable, index / INDEX, carry, *hiding.own()]
        if self.wrapped:
            readable = [*readable, *hiding.needed(command), *_trusted()]
            words = [*self._wrap([work, *writable], readable, network=network), *words]
        process = subprocess.Popen(
            words,
            cwd=work,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return _follow(job, process, timeout, quiet=quiet)

    def _limits(self, timeout: float) -> list[str]:
        if shutil.which("prlimit") is None:
            return []
        return [
            "prlimit",
            f"--as={self._settings.memory_bytes}",
            f"--fsize={self._settings.file_bytes}",
            f"--cpu={int(timeout * 4) + 1}",
            "--core=0",
            "--",
        ]

    def _wrap(
        self, writable: Sequence[Path], readable: Sequence[Path], *, network: bool
    ) -> list[str]:
        words = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        words += hiding.mounts(self._hidden, readable, writable, network=network)
        words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
        if not network:
            words.append("--unshare-net")
        return words


def _of_environment(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _trusted() -> list[Path]:
    """Where the certificates are that programs are told of."""
    return [Path(place) for place in _of_environment(CERTIFICATES).values() if place]


def _follow(job: Job, process: subprocess.Popen[bytes], timeout: float, *, quiet: bool) -> Ended:
    """Read the output until the end, the time limit or the cancellation."""
    kept: list[str] = []

    def read() -> None:
        assert process.stdout is not None, "it was asked for"
        size = 0
        with process.stdout as output:
            while raw := output.readline(LINE_LIMIT):
                line = raw.decode(errors="replace")
                size += len(line)
                if size < OUTPUT_LIMIT:
                    kept.append(line)
                if not quiet:
                    job.say(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deadline = time.monotonic() + timeout
    timed_out = False
    while process.poll() is None:
        timed_out = time.monotonic() > deadline
        if timed_out or job.cancelled.wait(0.02):
            break
    _kill(process)  # or what it has left behind, which holds its output open
    process.wait(timeout=30)
    reader.join(timeout=10)  # it goes on while somebody holds the output open, then closes it
    job.check()
    return Ended(process.returncode, job.clean("".join(kept)), timed_out)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
