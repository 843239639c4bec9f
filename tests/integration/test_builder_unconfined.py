"""Machines on which builds cannot be confined: `require` refuses, `auto` says so everywhere."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reconciler.builder.job import Job
from reconciler.builder.sandbox import Sandbox
from reconciler.core.errors import Stalled
from reconciler.settings import BuilderSettings
from tests.fakes.confining import ORDINARY, ROOT, words_as

NEEDED = ("git", "sh", "env", "sleep", "python3", "uname", "setpriv")
SANDBOX = """
import sys, threading
from pathlib import Path
from reconciler.builder.sandbox import Sandbox
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
    """Let PATH have the programs that a daemon needs, without bwrap and prlimit; returns it."""
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
    assert refused.value.reason == "SandboxMissing"
    assert "bwrap and prlimit not found" in refused.value.message


def test_auto_goes_on_without_bubblewrap_and_says_so(
    tmp_path: Path, without_bubblewrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sandbox = Sandbox(BuilderSettings(sandbox="auto"), tmp_path, [])
    assert "bwrap and prlimit not found" in sandbox.unconfined
    assert "builds run without a sandbox" in caplog.text
    job = Job("k", "one", "red", "r", tmp_path / "log", threading.Event())
    work = tmp_path / "work"
    work.mkdir()
    ended = sandbox.run(job, [sys.executable, "-c", "print(6 * 7)"], work=work, timeout=60)
    assert (ended.code, ended.output) == (0, "42\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may map users into a namespace")
@pytest.mark.parametrize("setting", ["require", "auto"])
def test_a_kernel_that_refuses_user_namespaces_is_told(setting: str) -> None:
    """The number of user namespaces is limited to none, as on hardened machines."""
    wait = 'read -r _ && exec "$@"'  # what is executed as root of the namespace has its rights
    refuse = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    daemon = words_as(ORDINARY, [sys.executable, "-c", SANDBOX, setting])
    process = subprocess.Popen(
        ["unshare", "--user", "--mount", "sh", "-c", wait, "sh", "sh", "-c", refuse, "sh", *daemon],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
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
