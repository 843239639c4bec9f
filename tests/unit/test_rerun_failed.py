"""Second try of tests of real servers: its conditions, and its result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.rerun_failed import main, refusal, rerun
from tests.harness.failures import VARIABLE, Failures

SERVER = "tests/integration/test_servers.py::test_starts"


def test_one_that_passes_now_is_named_as_flaky() -> None:
    assert rerun(Failures(1, [SERVER]), lambda _: True) == (0, f"flaky: 1 ({SERVER})")


def test_one_that_fails_again_fails_the_run() -> None:
    code, line = rerun(Failures(1, [SERVER, SERVER + "2"]), lambda name: name == SERVER)
    assert (code, line) == (1, f"failed again: {SERVER}2")


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (Failures(1, [f"{SERVER}{n}" for n in range(4)]), "more than 3"),
        (Failures(1, ["tests/unit/test_plan.py::test_it"]), "do not fail by chance"),
        (Failures(1, ["tests/properties/test_plan.py::test_it"]), "do not fail by chance"),
        (Failures(1, [SERVER], properties=[SERVER]), "do not fail by chance"),
        (Failures(1, [SERVER], skipped=["tests/e2e/test_a.py::test_b"]), "were skipped"),
        (Failures(1), "did not come to an end"),  # nothing failed but what a strict run forbids
        (Failures(2, [SERVER]), "did not come to an end"),  # interrupted, or not collected
        (Failures(3, [SERVER]), "did not come to an end"),
    ],
    ids=["many", "unit", "properties", "hypothesis", "skipped", "none", "interrupted", "internal"],
)
def test_there_is_no_second_try(run: Failures, words: str) -> None:
    assert words in refusal(run)
    code, line = rerun(run, lambda _: pytest.fail("it was tried again"))
    assert code == 1
    assert line.startswith("not tried again: ")


def test_without_a_list_there_is_no_second_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "other").write_text('{"exit": 1}')
    for name in ("missing", "empty", "other"):
        assert main([str(tmp_path / name)]) == 1
    assert capsys.readouterr().out.count("wrote no list of failures") == 3


def test_a_run_of_pytest_in_several_processes_writes_what_failed(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_some.py").write_text(
        "import hypothesis, pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.fixture\ndef broken(): raise OSError\n"
        "def test_setup(broken): pass\n"
        "@hypothesis.given(hypothesis.strategies.none())\ndef test_all(x): assert False\n"
        "def test_skipped(): pytest.skip('no')\n"
    )
    root = Path(__file__).parents[2]
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    written = tmp_path / "failures.json"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "1",
            "-p",
            "no:cacheprovider",
            str(tmp_path),
            "--rootdir",
            str(tmp_path),
            "-c",
            str(tmp_path / "pytest.ini"),
        ],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), VARIABLE: str(written)},
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    report = json.loads(written.read_text())
    assert report["exit_code"] == 1
    assert sorted(report["failed"]) == [f"test_some.py::test_{n}" for n in ("all", "bad", "setup")]
    assert report["properties"] == ["test_some.py::test_all"]
    assert report["skipped"] == ["test_some.py::test_skipped"]
