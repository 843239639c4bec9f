"""Restart and status commands of local instances.

A restart command may outlive the daemon that ran it: the daemon is killed, the command continues.
Two concurrent restarts of one component would fail, or start it once too often, and the build would
be blamed. So each running restart command is noted in a file, and the next restart of its component
waits for its end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from reconciler.failpoints import failpoint

log = logging.getLogger(__name__)

COMMAND_TIMEOUT = 300.0  # seconds per restart command: a scheduler waits for its tasks
STATUS_TIMEOUT = 20.0
TIMED_OUT = 124  # the exit code of a command that did not finish in time
OUTPUT = 1500  # characters of a failed command's output that are reported
LAST_WAIT = 5.0  # seconds for a killed command to disappear
POLL = 0.05  # seconds between two checks of a process that is not our child

HELD = 'read -r go && [ "$go" = go ] && exec "$@" </dev/null'
"""Shell text that runs the command once it is told to.

If the daemon dies before it has noted the process, the command never runs.
"""


def run(argv: tuple[str, ...], timeout: float) -> tuple[int, str]:
    """Run a command without a shell; return (exit code, the end of its output)."""
    with tempfile.TemporaryFile() as output:  # the processes that it starts would hold a pipe open
        try:
            process = _start(argv, subprocess.DEVNULL, output.fileno())
        except OSError as error:
            return 127, f"{argv[0]}: {error.strerror}"
        return _end(process, timeout, output.fileno())


def restart(argv: tuple[str, ...], note: Path | None) -> tuple[int, str]:
    """Run a restart command, after the one in `note` has ended."""
    if note is None:
        return run(argv, COMMAND_TIMEOUT)
    _wait_for(note)
    with tempfile.TemporaryFile() as output:
        held = ("/bin/sh", "-c", HELD, "restart", *argv)
        try:
            process = _start(held, subprocess.PIPE, output.fileno())
        except OSError as error:
            return 127, f"{held[0]}: {error.strerror}"
        assert process.stdin is not None, "it is a pipe"
        failpoint("airflow.restart.started")
        try:
            _write(note, _identity(process.pid))
        except OSError as error:  # a full disk is no reason to leave a component as it is
            log.warning("the running restart is not noted in %s: %s", note, error.strerror)
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(b"go\n")
        ended = _end(process, COMMAND_TIMEOUT, output.fileno())
        with suppress(OSError):
            note.unlink()
        return ended


def _start(argv: tuple[str, ...], stdin: int, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"PATH": os.defpath, "HOME": "/", "LANG": "C.UTF-8"},
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes], timeout: float, output: int) -> tuple[int, str]:
    """Wait for a command, and kill it with everything it started if that takes too long."""
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        _kill(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LAST_WAIT)
        return TIMED_OUT, f"no end within {timeout:.0f} s"
    size = os.lseek(output, 0, os.SEEK_END)
    begin = max(0, size - 4 * OUTPUT)
    return code, os.pread(output, size - begin, begin).decode(errors="replace").strip()[-OUTPUT:]


def _kill(pid: int) -> None:
    with suppress(OSError):  # it has ended, or it is another user's, by sudo
        os.killpg(pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------- the note


def _wait_for(note: Path) -> None:
    """Wait until the noted command has ended; kill it when its time is over."""
    try:
        identity = note.read_text()
        pid = int(identity.split()[0])
    except (OSError, ValueError, IndexError):
        return
    deadline = time.monotonic() + COMMAND_TIMEOUT
    while _identity(pid) == identity:
        if time.monotonic() > deadline:
            _kill(pid)
            deadline = time.monotonic() + LAST_WAIT
            while _identity(pid) == identity and time.monotonic() < deadline:
                time.sleep(POLL)
            break
        time.sleep(POLL)
    with suppress(OSError):
        note.unlink()


def _identity(pid: int) -> str:
    """Return an identity of a living process that is unique even across reboots, or ""."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    state, ticks = fields[0], fields[19]
    return "" if state == "Z" else f"{pid} {ticks} {boot}"


def _write(note: Path, text: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_name(note.name + ".new")
    temporary.write_text(text)
    temporary.replace(note)
