"""Output and leftover processes of commands: both are limited, whatever a build script does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.bubblewrap import LINE_LIMIT, Sandbox
from reconciler.builder.executor.kubernetes.exchange import (
    Command,
    missing_results,
    read_answer,
    read_beat,
)
from reconciler.core.errors import Cancelled
from reconciler.settings import BuilderSettings

WORKER = Path("reconciler/builder/executor/kubernetes/worker.py")
ENDLESS = "import sys, time; sys.stdout.write('x' * 1_000_000); sys.stdout.flush(); "


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    return BuildJob("k", "one", "red", "r", tmp_path / "log", threading.Event())


def sandbox(tmp_path: Path) -> tuple[Sandbox, Path]:
    """Return a sandbox without bubblewrap, which would end all processes in it, and a folder."""
    work = tmp_path / "work"
    work.mkdir()
    return Sandbox(BuilderSettings(sandbox="off"), tmp_path / "cache", []), work


def test_a_line_without_an_end_is_told_in_pieces_as_it_comes(job: BuildJob, tmp_path: Path) -> None:
    """It is never kept whole in memory: its start is in the log before its rest is printed."""
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


def test_a_process_that_is_left_behind_holds_nothing(job: BuildJob, tmp_path: Path) -> None:
    """The command ends when its own process ends, with what that has printed."""
    box, work = sandbox(tmp_path)
    begun = time.monotonic()
    ended = box.run(job, ["sh", "-c", "sleep 60 & echo done"], work=work, timeout=30)
    assert (ended.code, ended.output, ended.timed_out) == (0, "done\n", False)
    assert time.monotonic() - begun < 8


def test_a_process_that_left_its_group_holds_no_place(job: BuildJob, tmp_path: Path) -> None:
    """Without bubblewrap it stays alive, but the build continues."""
    box, work = sandbox(tmp_path)
    begun = time.monotonic()
    ended = box.run(job, ["sh", "-c", "setsid sleep 25 & echo done"], work=work, timeout=60)
    assert (ended.code, ended.output) == (0, "done\n")
    assert time.monotonic() - begun < 20


def answer_of(folder: Path, script: str, *results: Path) -> dict[str, Any]:
    """Return the answer of the program in a Job's pod to one command, a Python script."""
    command = Command([sys.executable, "-c", script], folder, {}, 30, True, results)
    (folder / "ask-0.json").write_text(json.dumps(command.document(1)))
    with subprocess.Popen([sys.executable, str(WORKER), str(folder), "1", "30"]) as process:
        answer = folder / "answer-0.json"
        for _ in range(500):
            if answer.is_file():
                break
            time.sleep(0.05)
        process.kill()
    document: dict[str, Any] = json.loads(answer.read_text())
    return document


def test_a_line_without_an_end_is_told_in_pieces_by_a_pod(tmp_path: Path) -> None:
    """The program in a Job's pod does the same."""
    lines = answer_of(tmp_path, ENDLESS)["lines"]
    assert {len(line) for line in lines[:-1]} == {LINE_LIMIT}
    assert sum(map(len, lines)) == 1_000_000


def test_results_are_read_only_as_the_pod_described_them(tmp_path: Path) -> None:
    """A file that the share does not show completely is missing; undeclared files never count."""
    out = tmp_path / "out"
    script = (
        "import os, pathlib; os.mkdir('out'); pathlib.Path('out/a').write_text('x' * 300_000); "
        "os.symlink('/etc/passwd', 'out/link'); os.mkfifo('out/pipe'); "
        "pathlib.Path('one.json').write_text('{}'); pathlib.Path('other').write_text('1')"
    )
    answer_of(tmp_path, script, out, tmp_path / "one.json", tmp_path / "never")
    answer = read_answer("red", tmp_path / "answer-0.json", 1)
    assert answer is not None
    assert set(answer.results) == {str(out / "a"), str(tmp_path / "one.json")}
    command = Command([], tmp_path, {}, 30, True, [out, tmp_path / "one.json"])
    assert not list(missing_results(answer, command))
    (out / "a").write_text("x" * 299_999 + "y")
    (tmp_path / "one.json").rename(tmp_path / "late")
    assert set(missing_results(answer, command)) == {out / "a", tmp_path / "one.json"}
    assert not list(missing_results(answer, Command([], tmp_path, {}, 30)))


def test_an_answer_with_another_digest_is_not_complete(tmp_path: Path) -> None:
    """A file that the share shows only partly is read again."""
    answer_of(tmp_path, "print('one')")
    path = tmp_path / "answer-0.json"
    assert read_answer("red", path, 1) is not None
    assert read_answer("red", path, 2) is None
    path.write_text(path.read_text().replace("one", "two"))
    assert read_answer("red", path, 1) is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "7",
        "[" * 100_000,
        '{"number": 1}',
        "\ud800",
        '{"number": 1, "code": "0", "timed_out": false, "lines": [], "results": {}, "sha256": ""}',
        '{"number": 1, "code": 0, "timed_out": 0, "lines": {}, "results": {}, "sha256": ""}',
        '{"number": 1, "code": 0, "timed_out": false, "lines": [1], "results": {}, "sha256": ""}',
        '{"number": 1, "code": 0, "timed_out": false, "lines": [], "results": [], "sha256": ""}',
    ],
)
def test_what_a_pod_writes_instead_of_an_answer_is_none(tmp_path: Path, text: str) -> None:
    """Nor is it a sign of life, or an error of ours."""
    path = tmp_path / "answer-0.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert read_answer("red", path, 1) is None
    assert read_beat(path) == 0
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert read_answer("red", path, 1) is None
