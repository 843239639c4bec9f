"""Attempts to escape from a sandbox: run as a script, it prints what each of them achieved.

`python escapes.py <JSON of places> [<name>…]` prints {name: what was achieved}; an attempt that was
stopped achieved "". Standard library only: it runs where a build script does. No attempt does harm
if it succeeds.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
STOPPED = {errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EROFS, errno.EAFNOSUPPORT}
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
DETACH, REMOUNT_BIND = 2, 0x20 | 0x1000
HERE = Path.cwd()


def _call(name: str, *arguments: Any) -> str:
    """Call a function of the C library; any error other than a refusal means it was reached."""
    ctypes.set_errno(0)
    result = getattr(LIBC, name)(*arguments)
    error = ctypes.get_errno()
    if result == -1 and error in STOPPED:
        return ""
    return f"{name} gives {result}, errno {error}"


def _status(field: str) -> int:
    tokens = Path("/proc/self/status").read_text().split()
    return int(tokens[tokens.index(f"{field}:") + 1], 16)


def _capabilities(places: dict[str, Any]) -> str:
    del places
    capabilities = {
        name: _status(name) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    }
    return json.dumps(capabilities) if any(capabilities.values()) else ""


def _new_privileges(places: dict[str, Any]) -> str:
    del places
    return "" if _status("NoNewPrivs") else "a setuid program would gain privileges"


def _root(places: dict[str, Any]) -> str:
    del places
    return "root" if 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()) else ""


def _mount(places: dict[str, Any]) -> str:
    del places
    (HERE / "mountpoint").mkdir(exist_ok=True)
    return _call("mount", b"tmpfs", bytes(HERE / "mountpoint"), b"tmpfs", 0, None)


def _unmount(places: dict[str, Any]) -> str:
    del places
    return _call("umount2", b"/proc/self/nothing", DETACH)


def _remount(places: dict[str, Any]) -> str:
    del places
    return _call("mount", None, b"/", None, REMOUNT_BIND, None)


def _read(place: str) -> Callable[[dict[str, Any]], str]:
    return lambda places: Path(str(places[place])).read_bytes()[:80].decode(errors="replace")


def _names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def _list(folder: str) -> Callable[[dict[str, Any]], str]:
    return lambda _: " ".join(_names(folder))


def _write(places: dict[str, Any]) -> str:
    Path(str(places["outside"])).write_text("x")
    return "written"


def _processes(places: dict[str, Any]) -> str:
    """Return processes outside this sandbox, recognized by a word in their environment."""
    word = str(places["word"]).encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if word in path.read_bytes():
                return str(path)
        except OSError:
            continue
    return ""


def _signal(places: dict[str, Any]) -> str:
    os.kill(int(places["victim"]), 0)
    return "it would have been ended"


def _root_of_victim(places: dict[str, Any]) -> str:
    return " ".join(_names(f"/proc/{places['victim']}/root"))


def _trace(places: dict[str, Any]) -> str:
    """Attach to a process, and leave it unchanged."""
    outcome = _call("ptrace", 0x4206, int(places["victim"]), None, None)  # PTRACE_SEIZE
    return "" if "-1" in outcome else outcome


def _unix(place: str) -> Callable[[dict[str, Any]], str]:
    def connect(places: dict[str, Any]) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(places[place]))
        return "connected"

    return connect


def _tcp(places: dict[str, Any]) -> str:
    socket.create_connection(("127.0.0.1", int(places["port"])), 5).close()
    return "connected"


def _family(family: int) -> Callable[[dict[str, Any]], str]:
    def make(places: dict[str, Any]) -> str:
        del places
        socket.socket(family, socket.SOCK_DGRAM).close()
        return "made"

    return make


def _keyring(places: dict[str, Any]) -> str:
    del places
    return _call("syscall", int(KEYCTL), 0, -3, 0, 0, 0)  # the id of the session keyring


def _devices(places: dict[str, Any]) -> str:
    del places
    usual = {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "ptmx",
        "pts",
        "shm",
        "fd",
        "core",
        "stdin",
        "stdout",
        "stderr",
        "console",
    }
    return " ".join(_names("/dev") - usual)


def _make_device(places: dict[str, Any]) -> str:
    del places
    device = HERE / "disk"
    device.unlink(missing_ok=True)
    os.mknod(device, 0o600 | 0o060000, os.makedev(254, 0))
    device.unlink()
    return "made"


def _nested(places: dict[str, Any]) -> str:
    """Create a user namespace in a child, as it would otherwise change this process."""
    del places
    child = os.fork()
    if child == 0:
        os._exit(1 if _call("unshare", NEW_USER | NEW_MOUNTS) else 0)
    _, status = os.waitpid(child, 0)
    return "made" if status else ""


def _cloned(places: dict[str, Any]) -> str:
    del places
    child = LIBC.syscall(CLONE, NEW_USER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    if child == -1:
        return ""
    os.waitpid(child, 0)
    return "made"


def _system_calls(places: dict[str, Any]) -> str:
    """Try all system calls in the filter, with meaningless arguments."""
    reached = []
    for name, number in places["calls"].items():
        ctypes.set_errno(0)
        LIBC.syscall(int(number), -1, -1, -1, -1, -1, -1)
        if ctypes.get_errno() not in STOPPED:
            reached.append(name)
    return " ".join(reached)


KEYCTL = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, -1)
CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, -1)

ESCAPES: dict[str, Callable[[dict[str, Any]], str]] = {
    "capabilities": _capabilities,
    "new privileges": _new_privileges,
    "root": _root,
    "mount": _mount,
    "unmount": _unmount,
    "remount": _remount,
    "nested user namespace": _nested,
    "cloned user namespace": _cloned,
    "chroot": lambda _: _call("chroot", b"/"),
    "make a device": _make_device,
    "devices": _devices,
    "another team's token": _read("token"),
    "another team's cache": _read("cache"),
    "settings": _read("settings"),
    "file of another service": _read("elsewhere"),
    "accounts": _read("accounts"),
    "write outside": _write,
    "processes outside": _processes,
    "signal": _signal,
    "root directory of a process": _root_of_victim,
    "trace": _trace,
    "socket of a service": _unix("socket"),
    "abstract socket": _unix("abstract"),
    "network": _tcp,
    "sockets to the hypervisor": _family(40),
    "sockets to the kernel's ciphers": _family(38),
    "keyring": _keyring,
    "/sys": _list("/sys"),
    "/run": _list("/run"),
    "system calls": _system_calls,
}


def _try(name: str, places: dict[str, Any]) -> str:
    try:
        return ESCAPES[name](places)
    except OSError:
        return ""


def _main() -> None:
    places = json.loads(sys.argv[1])
    names = sys.argv[2:] or list(ESCAPES)
    sys.stdout.write(json.dumps({name: _try(name, places) for name in names}) + "\n")


if __name__ == "__main__":
    _main()
