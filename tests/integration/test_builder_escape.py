"""Attempts to break out of the sandbox, with the daemon as root and as an ordinary user.

Each attempt is made twice: in a sandbox that hides nothing, where it must succeed, which proves
that it is a real attempt; and in the real one, where it must achieve nothing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from reconciler.builder.executor.seccomp import DENIED
from tests.harness import escapes
from tests.harness.confinement import ORDINARY, confine, run_as

CODE = Path(escapes.__file__).read_text()
USERS = [0, ORDINARY] if os.geteuid() == 0 else [os.geteuid()]

# The sandbox of an earlier release: the whole machine, read-only. With bwrap root keeps its rights.
WEAK = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev"]
ANYBODYS = {
    "nested user namespace",
    "cloned user namespace",
    "another team's token",
    "another team's cache",
    "settings",
    "file of another service",
    "accounts",
    "processes outside",
    "signal",
    "root directory of a process",
    "socket of a service",
    "abstract socket",
    "network",
    "keyring",
    "/sys",
    "/run",
    "write outside",
    "system calls",
}
ROOTS = {
    "capabilities",
    "root",
    "mount",
    "unmount",
    "remount",
    "chroot",
    "make a device",
    "trace",
    "new privileges",
}
# Not possible in any plain sandbox, or missing on this machine: stopped in any case.
NOWHERE = {"devices", "sockets to the hypervisor", "sockets to the kernel's ciphers"}
# Any bubblewrap stops these for some users; they are shown to succeed without it.
BARE = {
    "new privileges",
    "write outside",
    "trace",
    "root directory of a process",
    "processes outside",
}
UNTRIED = {"vhangup"}  # would end the terminal of the user who runs the tests


@dataclass(frozen=True)
class Machine:
    """A machine with something to find, and the folder of a daemon on it."""

    folder: Path
    user: int
    places: dict[str, Any]

    def attempt(self, *, network: bool = False) -> dict[str, str]:
        """Make every attempt in the sandbox; return those that achieved something."""
        command = [sys.executable, "-c", CODE, json.dumps(self.places)]
        return _achieved(confine(self.folder, self.user, command, network=network))

    def attempt_weakly(self, *, bare: bool) -> dict[str, str]:
        """Make the attempts in a sandbox that hides nothing, or without a sandbox."""
        names = BARE if bare else [n for n in escapes.ESCAPES if n not in BARE]
        program = [sys.executable, "-c", CODE, json.dumps(self.places), *names]
        work = str(self.folder / "weak")
        command = ["env", "-C", work, *program] if bare else self._weak(work, program)
        return _achieved(run_as(self.user, command))

    def _weak(self, work: str, words: list[str]) -> list[str]:
        return [*WEAK, "--bind", work, work, "--chdir", work, "--", *words]


def _achieved(output: str) -> dict[str, str]:
    outcomes = json.loads(output.splitlines()[-1])
    assert "failed" not in outcomes, outcomes["failed"]
    return {name: what for name, what in outcomes.items() if what}


def _numbers() -> dict[str, int]:
    library = ctypes.CDLL("libseccomp.so.2")
    numbers = {n: library.seccomp_syscall_resolve_name(n.encode()) for n in DENIED}
    return {name: number for name, number in numbers.items() if number >= 0 and name not in UNTRIED}


@pytest.fixture(params=USERS, ids=["root" if user == 0 else "ordinary" for user in USERS])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    user = int(request.param)
    folder = Path(tempfile.mkdtemp(prefix="groundcrew-escape-"))
    word = secrets.token_hex(8)
    texts = {
        "token": folder / "secrets/blue/corp/token",
        "cache": folder / "cache/uv-teams/blue/archive",
        "settings": folder / "groundcrew.toml",
        "elsewhere": folder / "service/records",
    }
    for path in texts.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(word)
    (folder / "weak").mkdir()
    with (
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        named.bind(str(folder / "service.sock"))
        named.listen()
        abstract.bind(f"\0groundcrew-{word}")
        abstract.listen()
        if os.geteuid() != user:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user, user)
        victim = (
            subprocess.Popen(
                ["sleep", "600"], env={"WORD": word}, user=user, group=user, extra_groups=[]
            )
            if os.geteuid() == 0
            else subprocess.Popen(["sleep", "600"], env={"WORD": word})
        )
        places = {
            **{name: str(path) for name, path in texts.items()},
            "accounts": "/etc/shadow" if user == 0 else "/etc/login.defs",
            "outside": str(folder / "outside"),
            "socket": str(folder / "service.sock"),
            "abstract": f"\0groundcrew-{word}",
            "port": server.getsockname()[1],
            "victim": victim.pid,
            "word": word,
            "calls": _numbers(),
        }
        try:
            yield Machine(folder, user, places)
        finally:
            victim.kill()
            victim.wait()
            shutil.rmtree(folder)


def test_every_attempt_is_one(machine: Machine) -> None:
    """Without the real sandbox each of them succeeds."""
    achieved = machine.attempt_weakly(bare=False) | machine.attempt_weakly(bare=True)
    expected = ANYBODYS | (ROOTS if machine.user == 0 else set())
    assert expected - achieved.keys() == set()
    assert escapes.ESCAPES.keys() == ANYBODYS | ROOTS | NOWHERE
    calls = {"ptrace", "keyctl", "setns", "process_vm_readv", "io_uring_enter"}
    if machine.user == 0:
        calls |= {"mount", "umount2", "chroot", "bpf", "swapon", "reboot", "sethostname"}
    assert calls - set(achieved["system calls"].split()) == set()


def test_no_attempt_achieves_anything(machine: Machine) -> None:
    """A build script, a build backend or an imported module cannot break out."""
    assert machine.attempt() == {}


def test_a_resolver_with_the_network_has_that_and_no_more(machine: Machine) -> None:
    """It reads the public index by itself; services on local sockets are not the index."""
    assert machine.attempt(network=True) == {"network": "connected"}


BOMB = """
import os, subprocess, time
living = 0
while living < 400:
    try:
        subprocess.Popen(["sleep", "300"], start_new_session=True)
    except OSError as error:
        print(living, os.strerror(error.errno))
        break
    living += 1
else:
    print(living, "no limit")
"""


def test_a_fork_bomb_ends_at_its_limit_and_with_its_command(machine: Machine) -> None:
    """Processes of sessions of their own end too, as their namespace ends."""
    limit = 60
    command = [sys.executable, "-c", BOMB]
    output = confine(machine.folder, machine.user, command, processes=limit)
    count, _, reason = output.strip().partition(" ")
    assert reason == os.strerror(errno.EAGAIN), output
    assert 0 < int(count) < limit
    user = machine.user or pwd.getpwnam("nobody").pw_uid
    assert user not in {
        process.info["uids"].real
        for process in psutil.process_iter(["cmdline", "uids"])
        if process.info["cmdline"] == ["sleep", "300"]
    }
