"""What commands print, and what they leave behind: both end, whatever a build script does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reconciler.builder.job import Job
from reconciler.builder.sandbox import LINE_LIMIT, Sandbox
from reconciler.core.errors import Cancelled
from reconciler.settings import BuilderSettings

WORKER = Path("reconciler/builder/jobs/worker.py")
ENDLESS = "import sys, time; sys.stdout.write('x' * 1_000_000); sys.stdout.flush(); "


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("k", "one", "red", "r", tmp_path / "log", threading.Event())


def sandbox(tmp_path: Path) -> tuple[Sandbox, Path]:
    """A sandbox without bubblewrap, which would end all that is in it; and a folder to work in."""
    work = tmp_path / "work"
    work.mkdir()
    return Sandbox(BuilderSettings(sandbox="off"), tmp_path / "cache", []), work


def test_a_line_without_an_end_is_told_in_pieces_as_it_comes(job: Job, tmp_path: Path) -> None:
    """Nobody holds all of it: its beginning is in the log while the rest is not yet printed."""
    box, work = sandbox(tmp_path)

    def cancel() -> None:
        while not job.log.is_file():
            time.sleep(0.02)
        job.cancelled.set()

    threading.Thread(target=cancel, daemon=True).start()
    command = [sys.executable, "-c", ENDLESS + "time.sleep(60)"]
    with pytest.raises(Cancelled):
        box.run(job, command, work=work, timeout=10)
    assert max(map(len, job.log.read_text().splitlines())) == LINE_LIMIT


def test_a_process_that_is_left_behind_holds_nothing(job: Job, tmp_path: Path) -> None:
    """A command ends when it ends itself, with what it has printed."""
    box, work = sandbox(tmp_path)
    begun = time.monotonic()
    ended = box.run(job, ["sh", "-c", "sleep 60 & echo done"], work=work, timeout=30)
    assert (ended.code, ended.output, ended.timed_out) == (0, "done\n", False)
    assert time.monotonic() - begun < 8


def test_a_process_that_left_its_group_holds_no_place(job: Job, tmp_path: Path) -> None:
    """Without bubblewrap it lives on; but the build goes on, too."""
    box, work = sandbox(tmp_path)
    begun = time.monotonic()
    ended = box.run(job, ["sh", "-c", "setsid sleep 25 & echo done"], work=work, timeout=60)
    assert (ended.code, ended.output) == (0, "done\n")
    assert time.monotonic() - begun < 20


def test_a_line_without_an_end_is_told_in_pieces_by_a_pod(tmp_path: Path) -> None:
    """The program in a Job's pod does the same."""
    ask = {
        "number": 1, "command": [sys.executable, "-c", ENDLESS], "folder": str(tmp_path),
        "environment": {}, "timeout": 30, "quiet": True,
    }  # fmt: skip
    (tmp_path / "ask-0.json").write_text(json.dumps(ask))
    with subprocess.Popen([sys.executable, str(WORKER), str(tmp_path), "1", "30"]) as process:
        answer = tmp_path / "answer-0.json"
        for _ in range(500):
            if answer.is_file():
                break
            time.sleep(0.05)
        process.kill()
    lines = json.loads(answer.read_text())["lines"]
    assert {len(line) for line in lines[:-1]} == {LINE_LIMIT}
    assert sum(map(len, lines)) == 1_000_000
