"""Restart commands that outlive the daemon that ran them, with real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.airflow import commands
from reconciler.airflow.commands import HELD, TIMED_OUT, restart

DAEMON = (
    "import sys; from pathlib import Path; from reconciler.airflow.commands import restart; "
    "restart(tuple(sys.argv[2:]), Path(sys.argv[1]))"
)


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "restarts" / "red-dev.scheduler"


def command(journal: Path, seconds: float) -> tuple[str, ...]:
    """Return a restart that records its beginning and its end."""
    script = f'echo begun >> "{journal}"; sleep {seconds}; echo ended >> "{journal}"'
    return ("/bin/sh", "-c", script)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_daemon_in(argv: tuple[str, ...], note: Path, journal: Path) -> None:
    """Run a restart in a separate daemon, and kill that as soon as the restart has begun."""
    with subprocess.Popen([sys.executable, "-c", DAEMON, str(note), *argv]) as daemon:
        wait_until(journal.exists)
        daemon.kill()


def test_a_restart_waits_for_the_one_of_a_killed_daemon(note: Path, tmp_path: Path) -> None:
    """There are never two at a time."""
    journal = tmp_path / "journal"
    kill_daemon_in(command(journal, 1.5), note, journal)
    assert note.exists()
    assert restart(command(journal, 0), note) == (0, "")
    assert journal.read_text().split() == ["begun", "ended", "begun", "ended"]
    assert not note.exists()


def test_one_that_never_ends_is_ended(
    note: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the usual time of a restart, and is then killed with all its processes."""
    journal = tmp_path / "journal"
    kill_daemon_in(command(journal, 3600), note, journal)
    pid = int(note.read_text().split()[0])
    monkeypatch.setattr(commands, "COMMAND_TIMEOUT", 0.5)
    assert restart(("/bin/true",), note) == (0, "")
    wait_until(lambda: _is_gone(pid))
    assert journal.read_text().split() == ["begun"]


def test_a_command_whose_process_was_not_noted_never_runs(tmp_path: Path) -> None:
    """If the daemon was killed before the note, the unknown command does nothing."""
    journal = tmp_path / "journal"
    held = ["/bin/sh", "-c", HELD, "restart", *command(journal, 0)]
    done = subprocess.run(held, stdin=subprocess.DEVNULL, check=False, timeout=60)
    assert (done.returncode, journal.exists()) == (1, False)


@pytest.mark.parametrize("text", ["", "x y z", "{pid}", "{pid} 1 of-another-boot"])
def test_a_note_of_no_running_command_is_passed_over(note: Path, text: str) -> None:
    """A process of another boot may have the same number, and is left alone."""
    with subprocess.Popen(["sleep", "60"]) as other:
        note.parent.mkdir()
        note.write_text(text.format(pid=other.pid))
        assert restart(("/bin/true",), note) == (0, "")
        assert other.poll() is None
        other.kill()


def test_what_a_command_says_and_its_code_are_told(note: Path, tmp_path: Path) -> None:
    """The same holds for a missing command and for one that hangs."""
    assert restart(("/bin/sh", "-c", "echo no such unit >&2; exit 5"), note) == (5, "no such unit")
    code, output = restart((str(tmp_path / "gone"),), note)
    assert code == 127
    assert f"{tmp_path}/gone: not found" in output


def test_a_command_that_hangs_is_ended(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its note is removed, too."""
    monkeypatch.setattr(commands, "COMMAND_TIMEOUT", 0.3)
    assert restart(("/bin/sleep", "60"), note)[0] == TIMED_OUT
    assert not note.exists()


def test_a_restart_goes_on_where_no_note_can_be_written(tmp_path: Path) -> None:
    """Half a restart would be worse than one that a later daemon does not wait for."""
    (tmp_path / "file").touch()
    assert restart(("/bin/true",), tmp_path / "file" / "note") == (0, "")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
