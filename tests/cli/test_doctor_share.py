"""The doctor's checks of an unsuitable share, and of one that hangs.

Each fault is one call that behaves as on a bad file system; nothing stays behind on the share.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.doctor import records, share
from reconciler.doctor.findings import Check, Finding, Level, good
from reconciler.doctor.runner import Task, examine
from reconciler.doctor.share import space
from reconciler.settings import Settings

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def disk_with_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it not matter how full the disk of the machine is that runs the tests."""
    for module in (share, records):
        monkeypatch.setattr(module, "space", lambda *_: [])


def fails(code: int) -> Callable[..., Any]:
    """Return a call that always fails."""

    def call(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


def without_exclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, *more, **kw: real(path, flags & ~os.O_EXCL, *more, **kw)
    )


def over_full_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target.is_dir():
            target.rename(target.with_name("aside"))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


def modes_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    monkeypatch.setattr(
        os, "open", lambda path, flags, mode=0o600, **kw: real(path, flags, mode & 0o600, **kw)
    )


FAULTS: dict[str, tuple[Patch, str]] = {
    "flock does nothing": (lambda m: m.setattr(fcntl, "flock", lambda *_: None), "LockIgnored"),
    "flock is refused": (lambda m: m.setattr(fcntl, "flock", fails(errno.ENOLCK)), "LockRefused"),
    "rename does nothing": (lambda m: m.setattr(Path, "rename", lambda *_: None), "RenameBroken"),
    "rename fails": (lambda m: m.setattr(Path, "rename", fails(errno.EIO)), "ShareUnreachable"),
    "directories are replaced": (over_full_directories, "RenameBroken"),
    "O_EXCL is not kept": (without_exclusive, "ExclusiveBroken"),
    "fsync fails": (lambda m: m.setattr(os, "fsync", fails(errno.EIO)), "ShareUnreachable"),
    "modes are lost": (modes_lost, "ModesLost"),
    "nolock": (
        lambda m: m.setattr(share, "mounted", lambda _: ("nfs", ("rw", "nolock"))),
        "LockLocal",
    ),
}


def test_a_sound_directory_is_good(tmp_path: Path) -> None:
    """One finding, with the free space; nothing stays behind."""
    tmp_path.chmod(0o755)
    (finding,) = share.look(tmp_path)
    assert (finding.level, finding.check) == (Level.OK, Check.SHARE)
    assert "GiB are free" in finding.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_file_system_does_not_keep(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is wrong, has a name and a message, and nothing stays behind."""
    patch, reason = FAULTS[fault]
    with monkeypatch.context() as patched:
        patch(patched)
        findings = list(share.look(tmp_path))
    assert reason in {f.reason for f in findings}
    assert all(f.level is not Level.OK and f.mend for f in findings)
    assert list(tmp_path.iterdir()) == []


def test_a_share_that_is_not_there_or_read_only(tmp_path: Path) -> None:
    """A missing mount, and one that is not writable: /sys is not writable for anyone."""
    (finding,) = share.look(tmp_path / "nowhere")
    assert (finding.level, finding.reason) == (Level.WRONG, Reason.SHARE_MISSING)
    (finding,) = share.look(Path("/sys"))
    assert (finding.level, finding.reason) == (Level.WRONG, Reason.SHARE_UNWRITABLE)


def test_a_share_that_others_may_not_enter(tmp_path: Path) -> None:
    """Airflow runs as another user than the daemon."""
    tmp_path.chmod(0o700)
    assert [f.reason for f in share.look(tmp_path)] == ["NotWorldReadable"]


@pytest.mark.parametrize(
    ("free", "level"), [(100, None), (10, None), (9, Level.WARNING), (2, Level.WRONG)]
)
def test_how_full_it_may_be(free: int, level: Level | None) -> None:
    """The same limits as in the alert about the share; garbage is collected only there."""
    for check in (Check.SHARE, Check.STATE):
        findings = space(check, "/share", 100, free)
        assert [f.level for f in findings] == ([level] if level else [])
        advice = [f for f in findings if "groundcrew gc" in f.mend]
        assert len(advice) == (check is Check.SHARE and level is not None)


def test_a_server_whose_clock_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen in the time of a new file."""
    later = SimpleNamespace(time=lambda: time.time() - 3600)
    monkeypatch.setattr(share, "time", later)
    skew = [f for f in share.look(tmp_path) if f.check is Check.CLOCK]
    assert [(f.level, f.reason) for f in skew] == [(Level.WARNING, "ClockSkew")]
    assert "+3600 s" in skew[0].message


def test_sqlite_on_a_network_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks may not work there; PostgreSQL's state may be anywhere."""
    monkeypatch.setattr(records, "mounted", lambda _: ("nfs4", ("rw",)))
    settings = Settings(state_dir=tmp_path)
    assert [f.reason for f in records.look_state(settings)] == ["StateRemote"]
    settings = Settings(state_dir=tmp_path, database="postgresql+psycopg://db/groundcrew")
    assert [f.level for f in records.look_state(settings)] == [Level.OK]


# ----------------------------------------------------------------------------- checks that go wrong


def task(look: Callable[[], Any], seconds: float = 30.0) -> Task:
    return Task(Check.SHARE, "it", look, seconds)


def test_one_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    """It hangs in the kernel, as on a dead mount; it is reported, and all others finish."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def hangs() -> Iterator[Finding]:
        with fifo.open():  # until something writes
            yield good(Check.SHARE, "it", "opened")

    tasks = [task(hangs, 0.2) for _ in range(20)]
    tasks += [task(lambda: [good(Check.GIT, "repo", "read")])]
    ended: list[Task] = []
    findings = examine(tasks, ended.append)
    assert [f.reason for f in findings] == ["TimedOut"] * 20 + ["Good"]
    assert {f.level for f in findings[:20]} == {Level.UNREACHABLE}
    assert sorted(map(id, ended)) == sorted(map(id, tasks))
    os.close(os.open(fifo, os.O_RDWR))  # ends every thread that waits for a writer


def test_an_error_of_a_check_is_a_finding() -> None:
    """Ours by its reason, the system's by its text, a bug by its name alone."""

    def raising(error: Exception) -> Task:
        def look() -> list[Finding]:
            raise error

        return task(look)

    findings = examine(
        [
            raising(Retryable(Reason.SHARE_UNREACHABLE, "no answer")),
            raising(Stalled(Reason.SHARE_UNWRITABLE, "no")),
            raising(OSError(errno.ESTALE, "Stale file handle", "/share")),
            raising(ValueError("pa55word")),
        ]
    )
    assert [(f.level, f.reason) for f in findings] == [
        (Level.UNREACHABLE, "ShareUnreachable"),
        (Level.WRONG, "ShareUnwritable"),
        (Level.UNREACHABLE, "SystemError"),
        (Level.WRONG, "CheckFailed"),
    ]
    assert "pa55word" not in findings[3].message
    assert all(f.mend for f in findings)
