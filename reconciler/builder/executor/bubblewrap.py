"""Executor on this machine: each command is confined, limited in resources, and ended.

A confined command sees the system's programs and libraries, the interpreter that it runs, its own
folder and what it was given (see `mounts`); it has no capabilities and no network except the
forwarded package index (see `confinement`). Its environment contains nothing of the daemon's. Its
process group ends with its time limit or the job's cancellation.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor import mounts
from reconciler.builder.executor.confinement import PRLIMIT, confinement_for
from reconciler.builder.executor.protocol import Ended
from reconciler.builder.executor.team_disk import TeamDisk
from reconciler.builder.index.proxy import INSIDE_PORT, Indexes
from reconciler.builder.uv import uv_path
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.settings import BuilderSettings

log = logging.getLogger(__name__)

OUTPUT_LIMIT = 4 << 20  # bytes kept of a process's output
LINE_LIMIT = 64 << 10  # bytes; a longer line is logged in pieces
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("https_proxy", "http_proxy", "no_proxy")  # with credentials, which uv needs
TEAMS = "uv-teams"  # in the cache: uv's caches of what the teams' own code makes
INDEX = "index"  # in a job's folder: the directory in which its indexes are served


class Sandbox:
    """Executor on this machine; `hidden` are paths that commands must not see."""

    def __init__(self, settings: BuilderSettings, cache: Path, hidden: Sequence[Path]) -> None:
        self._settings = settings
        self._cache = cache
        self._team_disk = TeamDisk(settings.team_disk_bytes, cache / "work")
        self._hidden = hidden
        self.unconfined = unconfined_because(settings)
        self.wrapped = not self.unconfined
        if settings.sandbox == "require" and self.unconfined:
            raise Stalled(
                Reason.SANDBOX_MISSING,
                f"builder.sandbox is `require`, but {self.unconfined}; fix that, or set "
                f"builder.sandbox to `auto` to run what teams wrote unconfined",
            )
        self._confinement = confinement_for(settings.user) if self.wrapped else None
        self._user = self._confinement.user if self._confinement is not None else None
        self._to_warn = bool(self.unconfined)

    def _warn(self) -> None:
        """Warn, once, when something runs unconfined: builds in Jobs need no sandbox here."""
        if self._to_warn:
            self._to_warn = False
            who = "as root" if os.geteuid() == 0 else "with all rights of the daemon's user"
            log.warning("builds run without a sandbox, %s: %s", who, self.unconfined)

    def scratch(self, job: BuildJob, *, harmless: bool) -> Path:
        """Return one folder for all: each command sees only its own part of it."""
        del job, harmless
        path = self._cache / "work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def leave(self, job: BuildJob) -> None:
        """Do nothing, because nothing is kept between commands."""

    def uv(self) -> str:
        """Return the uv that is installed beside this program."""
        return uv_path()

    def direct(self, indexes: Indexes) -> bool:
        """Return True if uv may read the default index itself: it then has the network."""
        return indexes.plain

    def cache_of(self, team: str) -> Path:
        """Return uv's cache; a build script may write only to its team's."""
        path = self._cache / (f"{TEAMS}/{team}" if team else "uv")
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def serving(self, indexes: Indexes, work: Path) -> Iterator[str]:
        """Serve indexes to commands that are run with `index=work`; yield the URL for them."""
        if not self.wrapped:
            with indexes.serve(None) as url:
                yield url
            return
        folder = work / INDEX
        folder.mkdir()
        with indexes.serve(folder) as url:
            if self._user is not None:
                self._user.own(folder)
            yield url

    def may_show(self, folder: Path) -> bool:
        """Return True if commands may read this folder; see Executor. Unconfined ones read all."""
        return not self.wrapped or not mounts.lays_bare(folder, self._hidden)

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
        """Run a command to its end; see Executor."""
        del harmless, results  # each command has its own namespaces, and this machine's disk
        self._warn()
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
        arguments = [*self._limits(timeout), *command]
        caches = [path for path in writable if path.is_relative_to(self._cache / TEAMS)]
        with contextlib.ExitStack() as stack:
            check = stack.enter_context(self._team_disk.using(job.team, work, caches))
            inherited: tuple[int, ...] = ()
            if self._confinement is not None:
                if index is not None:
                    source = resources.files("reconciler.builder.index") / "relay.py"
                    carry = stack.enter_context(resources.as_file(source))
                    port = str(INSIDE_PORT)
                    arguments = [
                        sys.executable,
                        "-I",
                        str(carry),
                        port,
                        str(index / INDEX),
                        *arguments,
                    ]
                    readable = [*readable, index / INDEX, carry, *mounts.own()]
                self._lend(work, writable, readable)
                known = [*self._settings.readable, *mounts.needed(command), *_trusted()]
                view = mounts.view(self._hidden, [*readable, *known], [work, *writable])
                arguments, inherited = stack.enter_context(
                    self._confinement.command(view, arguments, network=network)
                )
            process = subprocess.Popen(
                arguments,
                cwd=work,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=inherited,
            )
            return _follow(job, process, timeout, check, quiet=quiet)

    def _lend(self, work: Path, writable: Sequence[Path], readable: Sequence[Path]) -> None:
        """Give the command's user what it writes, and let it read what the daemon has created."""
        if self._user is None:
            return
        self._user.own(work)
        for folder in writable:
            self._user.own_cache(folder)
        for path in readable:
            if path.is_relative_to(self._cache) and path.name != INDEX:
                _open_to_readers(path)

    def _limits(self, timeout: float) -> list[str]:
        """Return the words that limit what a command uses.

        Processes are counted for a user, or for a user namespace. An unconfined command has the
        daemon's own user, whose other processes would count too.
        """
        if shutil.which(PRLIMIT) is None:
            return []
        limits = [
            f"--as={self._settings.memory_bytes}",
            f"--fsize={self._settings.file_bytes}",
            f"--cpu={int(timeout * 4) + 1}",
            "--core=0",
        ]
        if self.wrapped:
            limits.append(f"--nproc={self._settings.processes}")
        return [PRLIMIT, *limits, "--"]


def unconfined_because(settings: BuilderSettings) -> str:
    """Return why this machine's builds are not confined, or "".

    Raises Stalled("BuilderUser").
    """
    if settings.sandbox == "off":
        return "builder.sandbox is `off`"
    return confinement_for(settings.user).problem()


def _of_environment(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _trusted() -> list[Path]:
    """Return the paths of the certificates that are passed to programs."""
    return [Path(path) for path in _of_environment(CERTIFICATES).values() if path]


def _open_to_readers(path: Path) -> None:
    """Let others read a file or folder of the daemon's cache, whatever the daemon's umask."""
    for here, _, files in os.walk(path):
        for name in (".", *files):
            _allow(Path(here, name))
    if path.is_file():
        _allow(path)


def _allow(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    wanted = mode | stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    if mode != wanted:
        path.chmod(wanted)


def _follow(
    job: BuildJob,
    process: subprocess.Popen[bytes],
    timeout: float,
    check: Callable[[], None],
    *,
    quiet: bool,
) -> Ended:
    """Read the output until the end, the time limit, the cancellation or an error of `check`."""
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
    try:
        while process.poll() is None:
            check()
            timed_out = time.monotonic() > deadline
            if timed_out or job.cancelled.wait(0.02):
                break
    finally:
        _kill(process)  # or what it has left behind, which holds its output open
        process.wait(timeout=30)
        reader.join(timeout=10)  # it continues while something holds the output open, then closes
    job.check()
    return Ended(process.returncode, job.clean("".join(kept)), timed_out)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
