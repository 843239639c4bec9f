"""Confinement by bubblewrap: namespaces, an unprivileged user, no capabilities, a seccomp filter.

Whatever user the daemon runs as, the command ends up as an ordinary user with nothing in its
capability sets and no way to gain any. A daemon that is root sets up the command's view as root,
and the command becomes the user that `builder.user` names (setpriv, from util-linux). Any other
daemon has bubblewrap create a user namespace in which the command is the only user.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.builder.executor import mounts, seccomp
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

INSIDE = 1000  # uid and gid of a command in its own user namespace
SHARED_MEMORY = 1 << 30  # bytes that a command may put into /dev/shm
MASKED = (  # of /proc: the kernel's memory, symbols, keys and timers
    "kcore",
    "kallsyms",
    "keys",
    "key-users",
    "kmsg",
    "timer_list",
    "sched_debug",
    "sysrq-trigger",
)
SETUP = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")  # needed to become another user
PRLIMIT = "prlimit"  # of util-linux; without it nothing limits what a command uses
PROBE_TIMEOUT = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class User:
    """User that commands run as if the daemon is root."""

    uid: int
    gid: int

    def own(self, folder: Path) -> None:
        """Give a folder and everything in it to the user; links are not followed."""
        for _, names, files, handle in os.fwalk(folder, follow_symlinks=False):
            self._own(".", handle)
            for name in (*names, *files):
                self._own(name, handle)

    def own_cache(self, folder: Path) -> None:
        """Give a cache to the user unless it is already the owner, as in earlier runs."""
        if folder.stat().st_uid != self.uid:
            self.own(folder)

    def _own(self, name: str, handle: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(name, dir_fd=handle, follow_symlinks=False)
            linked = stat.S_ISREG(info.st_mode) and info.st_nlink > 1  # it may also be elsewhere
            if (info.st_uid, info.st_gid) != (self.uid, self.gid) and not linked:
                os.chown(name, self.uid, self.gid, dir_fd=handle, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Confinement:
    """Confinement of commands to a view of the machine, without any rights outside of it.

    `user` is None if the daemon itself is an ordinary user.
    """

    user: User | None

    @contextlib.contextmanager
    def command(
        self, view: Sequence[str], command: Sequence[str], *, network: bool = False
    ) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """Yield the command that runs `command` confined, and the descriptors that it inherits.

        `view` are bubblewrap's arguments for what is visible. Raises FilterError.
        """
        program = seccomp.filter_program(unix_sockets=not network)
        uid = INSIDE if self.user is None else self.user.uid
        gid = INSIDE if self.user is None else self.user.gid
        passwd = f"root:x:0:0::/:/bin/false\nbuild:x:{uid}:{gid}::/:/bin/false\n"
        group = f"root:x:0:\nbuild:x:{gid}:\n"
        with (
            seccomp.opened(program) as rules,
            seccomp.opened(passwd.encode()) as users,
            seccomp.opened(group.encode()) as groups,
        ):
            arguments = [
                "bwrap",
                *view,
                "--dir",
                "/etc",
                "--perms",
                "0444",
                "--ro-bind-data",
                str(users),
                "/etc/passwd",
                "--perms",
                "0444",
                "--ro-bind-data",
                str(groups),
                "/etc/group",
                *_kernel_files(),
                *self._namespaces(network=network),
                "--cap-drop",
                "ALL",
                "--new-session",
                "--die-with-parent",
                "--seccomp",
                str(rules),
            ]
            if self.user is not None:
                for capability in SETUP:
                    arguments += ["--cap-add", capability]
            yield [*arguments, "--", *self._become(), *command], (rules, users, groups)

    def _namespaces(self, *, network: bool) -> list[str]:
        arguments = [
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--hostname",
            "build",
            "--unshare-cgroup-try",
        ]
        if not network:
            arguments.append("--unshare-net")
        if self.user is None:
            arguments += ["--unshare-user", "--uid", str(INSIDE), "--gid", str(INSIDE)]
            if "--disable-userns" in _bubblewrap_help():
                arguments.append("--disable-userns")
        return arguments

    def _become(self) -> list[str]:
        if self.user is None:
            return []
        return [
            "setpriv",
            "--reuid",
            str(self.user.uid),
            "--regid",
            str(self.user.gid),
            "--clear-groups",
            "--inh-caps=-all",
            "--ambient-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
            "--",
        ]

    def problem(self) -> str:
        """Return why commands cannot be confined here, or ""."""
        missing = [
            name
            for name in ("bwrap", PRLIMIT, *(() if self.user is None else ("setpriv",)))
            if shutil.which(name) is None
        ]
        if missing:
            return f"{' and '.join(missing)} not found; install bubblewrap and util-linux"
        try:
            with self.command(mounts.view([], [], []), ["true"]) as (command, inherited):
                done = subprocess.run(
                    command,
                    capture_output=True,
                    timeout=PROBE_TIMEOUT,
                    check=False,
                    cwd="/",
                    pass_fds=inherited,
                )
        except seccomp.FilterError as error:
            return f"{error}; install libseccomp"
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not run here ({error})"
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-300:]
            return f"bubblewrap may not confine a command here ({said}); it needs 0.6 or newer"
        return ""


def confinement_for(user: str) -> Confinement:
    """Return the confinement of this daemon's commands; as root, `user` is the user they run as.

    Raises Stalled("BuilderUser") if root has no other user to become.
    """
    if os.geteuid() != 0:
        return Confinement(None)
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        account = User(entry.pw_uid, entry.pw_gid)
    except (KeyError, OverflowError):
        account = User(int(user), int(user)) if user.isdecimal() else User(0, 0)
    if account.uid == 0:
        raise Stalled(
            Reason.BUILDER_USER,
            f"builder.user is {user!r}, which is root or no user of this machine; name the user "
            f"that builds run as, such as nobody",
        )
    return Confinement(account)


@functools.cache
def _bubblewrap_help() -> str:
    try:
        done = subprocess.run(
            ["bwrap", "--help"], capture_output=True, timeout=PROBE_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).decode(errors="replace")


def _kernel_files() -> list[str]:
    """Return arguments for a private /proc and a minimal /dev that cannot be written to."""
    arguments = ["--proc", "/proc"]
    for name in MASKED:
        if Path("/proc", name).exists():
            arguments += ["--ro-bind", os.devnull, f"/proc/{name}"]
    arguments += ["--remount-ro", "/proc", "--dev", "/dev"]
    arguments += ["--perms", "1777", "--size", str(SHARED_MEMORY), "--tmpfs", "/dev/shm"]  # noqa: S108 - its own
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/"]
