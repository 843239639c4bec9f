"""Machines on which builds cannot be confined: `require` refuses, `auto` says so everywhere."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from metrics.exporter import Exporter, Sandboxing
from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.settings import BuilderSettings
from tests.fakes.airflow_rest import FakeAirflow
from tests.fakes.definitions import instance
from tests.fakes.simulated_world import House
from tests.harness.confinement import ORDINARY, ROOT, words_as
from tests.harness.local_daemon import Site
from tests.monitoring.test_exporter import History

COMPLETE_PATH = os.environ["PATH"]
NEEDED = ("git", "sh", "env", "sleep", "python3", "uname", "setpriv")
SANDBOX = """
import sys, threading
from pathlib import Path
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.core.errors import Stalled
from reconciler.settings import BuilderSettings
try:
    sandbox = Sandbox(BuilderSettings(sandbox=sys.argv[1]), Path("/nonexistent"), [])
    print(sandbox.unconfined)
except Stalled as error:
    print(error.reason, error.message)
"""


@pytest.fixture
def without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set PATH to the programs that a daemon needs, without bwrap and prlimit; return it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        program = shutil.which(name)
        if program is not None:
            (folder / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))
    return str(folder)


def test_require_refuses_to_start_without_bubblewrap(
    tmp_path: Path, without_bubblewrap: str
) -> None:
    with pytest.raises(Stalled) as refused:
        Sandbox(BuilderSettings(sandbox="require"), tmp_path, [])
    assert refused.value.reason == Reason.SANDBOX_MISSING
    assert "bwrap and prlimit not found" in refused.value.message


def test_auto_goes_on_without_bubblewrap_and_says_so(
    tmp_path: Path, without_bubblewrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = Sandbox(BuilderSettings(sandbox="auto"), tmp_path, [])
    assert "bwrap and prlimit not found" in sandbox.unconfined
    job = BuildJob("k", "one", "red", "r", tmp_path / "log", threading.Event())
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", "print(6 * 7)"]
    with caplog.at_level(logging.WARNING):
        ended = [sandbox.run(job, command, work=work, timeout=60) for _ in range(2)]
    assert [(one.code, one.output) for one in ended] == [(0, "42\n")] * 2
    assert caplog.text.count("builds run without a sandbox") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may map users into a namespace")
@pytest.mark.parametrize("setting", ["require", "auto"])
def test_a_kernel_that_refuses_user_namespaces_is_told(setting: str) -> None:
    """The number of user namespaces is limited to 0, as on hardened machines."""
    wait = 'read -r _ && exec "$@"'  # programs run by root of the namespace have its rights
    refuse = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    daemon = words_as(ORDINARY, [sys.executable, "-c", SANDBOX, setting])
    process = subprocess.Popen(
        ["unshare", "--user", "--mount", "sh", "-c", wait, "sh", "sh", "-c", refuse, "sh", *daemon],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    deadline = time.monotonic() + 60
    ours = Path("/proc/self/ns/user").readlink()
    while Path(f"/proc/{process.pid}/ns/user").readlink() == ours:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{process.pid}/{name}").write_text("0 0 65536")
    output, _ = process.communicate("go on\n", timeout=120)
    assert process.returncode == 0
    assert "bubblewrap may not confine a command here" in output
    assert output.startswith("SandboxMissing") is (setting == "require")


def test_a_daemon_without_a_sandbox_is_told_by_doctor_status_and_metric(
    tmp_path: Path, without_bubblewrap: str
) -> None:
    """It is loud where people look, and gone from there once the sandbox is back."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
        code, output = site.once(PATH=without_bubblewrap)
        assert code == 0, output
        told = "builds for local instances are not confined: bwrap and prlimit not found"
        assert told in site.run("status")[1]
        code, output = site.run("doctor", "sandbox", "-o", "json")
        (finding,) = json.loads(output)
        assert (code, finding["level"], finding["reason"]) == (1, "wrong", "SandboxMissing")
        assert "with all rights of the daemon's user" in finding["message"]
        code, output = site.once(GROUNDCREW_BUILDER__SANDBOX="require")
        assert code == 1
        assert "SandboxMissing" in output or "builder.sandbox is `require`" in output
        code, output = site.once(PATH=COMPLETE_PATH)
        assert code == 0, output
        assert "not confined" not in site.run("status", PATH=COMPLETE_PATH)[1]
        code, output = site.run("doctor", "sandbox", "-o", "json", PATH=COMPLETE_PATH)
        (finding,) = json.loads(output)
        assert (code, finding["level"]) == (0, "ok")


@pytest.mark.parametrize("confined", [True, False])
def test_the_metric_says_whether_builds_are_confined(confined: bool) -> None:
    """For daemons with local instances only: no other one runs builds on its machine."""
    house = House()
    history = History(house.events)
    exporter = Exporter(history, lambda: house.records, sandbox=Sandboxing("auto", confined))
    assert "groundcrew_builds_confined" not in generate_latest(exporter.registry).decode()
    house.join(instance("a"))
    house.commit()
    house.cycle()
    page = generate_latest(exporter.registry).decode()
    assert f'groundcrew_builds_confined{{setting="auto"}} {float(confined)}' in page
