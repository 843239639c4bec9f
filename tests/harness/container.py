"""Runner of a container's command as a local process under bubblewrap.

The root file system is the host's, read-only, without what is hidden; volumes are mounted as the
pod specifies; the network is the host's. The command is process 1 of its own namespace, as in a
real container: a signal without a handler has no effect on it, except SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OWN = {"/proc", "/dev"}  # made by bubblewrap


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Root file system of a container.

    `mounts`: (source, path, read-only). `hidden`: empty there. `image`: visible even if hidden.
    """

    mounts: Sequence[tuple[Path, Path, bool]]
    hidden: frozenset[str] = frozenset()
    image: Path | None = None

    def words(self) -> list[str]:
        """Return the arguments of bwrap that create it."""
        places = [(source, os.path.realpath(path), ro) for source, path, ro in self.mounts]
        cut = {target for _, target, _ in places} | set(self.hidden)
        arguments = list(self._walk("/", cut))
        for source, target, read_only in places:
            arguments += ["--ro-bind" if read_only else "--bind", str(source), target]
        if self.image is not None:  # last: it may be below a volume's path, /tmp for instance
            arguments += ["--ro-bind", str(self.image), str(self.image)]
        return [*arguments, "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/"]

    def _walk(self, directory: str, cut: set[str]) -> Iterator[str]:
        """Bind what the host has below a directory, down to the paths that are cut out."""
        for entry in sorted(os.scandir(directory), key=lambda e: e.name):
            path = entry.path
            if path in OWN:
                continue
            if entry.is_symlink():
                yield from ("--symlink", str(Path(path).readlink()), path)
            elif path in cut:
                yield from ("--dir", path)
            elif any(target.startswith(path + "/") for target in cut):
                yield from ("--dir", path)
                yield from self._walk(path, cut)
            else:
                yield from ("--ro-bind-try", path, path)


@dataclass(slots=True)
class Container:
    """Running command; the thread that started it must live as long as it does."""

    process: subprocess.Popen[bytes]
    pid: int
    killed: str = field(default="")

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        root: Rootfs,
        environment: dict[str, str],
        log: Path,
        *,
        uid: int,
        cwd: str,
    ) -> Container:
        """Start the command; its output goes to `log`."""
        first = f"{root.image}/bin:" if root.image else ""
        variables = {"PATH": first + PATH, "HOME": "/", **environment}
        arguments = [
            "bwrap",
            "--unshare-user",
            "--uid",
            str(uid),
            "--gid",
            "0",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--new-session",
            "--die-with-parent",
            "--as-pid-1",
            *root.words(),
            "--chdir",
            cwd or "/",
            "--clearenv",
        ]
        for name, value in variables.items():
            arguments += ["--setenv", name, value]
        read_end, write_end = os.pipe()
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*arguments, "--info-fd", str(write_end), "--", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[write_end],
                )
        finally:
            os.close(write_end)
        with os.fdopen(read_end) as info:
            told = info.read()  # ends when bwrap has started the command, or has failed
        return cls(process, json.loads(told)["child-pid"] if told.strip() else 0)

    def code(self) -> int | None:
        """Return the exit code once it has ended (128 + n for signal n)."""
        status = self.process.poll()
        return 128 - status if status is not None and status < 0 else status

    def terminate(self, why: str = "") -> None:
        """Send SIGTERM to process 1."""
        self._signal(signal.SIGTERM, why)

    def kill(self, why: str = "") -> None:
        """Send SIGKILL to process 1, which ends the whole container."""
        self._signal(signal.SIGKILL, why)

    def _signal(self, number: signal.Signals, why: str) -> None:
        if self.process.poll() is not None:
            return
        self.killed = why or self.killed
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid or self.process.pid, number)
