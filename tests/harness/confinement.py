"""Run one command in a sandbox as the current user, and print its output.

`python -m tests.harness.confinement <folder> <settings as JSON> <network: 0 or 1> <command>…` uses
the folder as a daemon uses its state folder. The settings are those of `builder`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.settings import BuilderSettings

ORDINARY = 61234  # no user of this machine has it
ROOT = Path(__file__).resolve().parents[2]


def confine(
    folder: Path, user: int, command: list[str], *, network: bool = False, **settings: object
) -> str:
    """Return what a command prints in the sandbox of a daemon that runs as a user."""
    program = [sys.executable, "-m", "tests.harness.confinement", str(folder), json.dumps(settings)]
    return run_as(user, [*program, str(int(network)), *command])


def run_as(user: int, command: list[str]) -> str:
    """Return what a command prints that a user runs; root becomes that user."""
    done = subprocess.run(
        words_as(user, command),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def words_as(user: int, command: list[str]) -> list[str]:
    """Return the command that runs a command as a user, which root becomes."""
    return command if user == os.geteuid() else [*_as_another(user), *command]


def _as_another(user: int) -> list[str]:
    """Return the start of a command for another user, who sees only the program in root's home."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "util-linux is everywhere"
    shown = {Path(p).resolve() for p in (ROOT, sys.prefix, sys.base_prefix)}
    closed = {p for folder in shown for p in folder.parents if not p.stat().st_mode & 0o001}
    outermost = [p for p in closed if not any(o in closed for o in p.parents)]
    command = ["bwrap", "--dev-bind", "/", "/"]
    for closed_folder in outermost:
        command += ["--perms", "0755", "--tmpfs", str(closed_folder)]
        for folder in sorted(f for f in shown if f.is_relative_to(closed_folder)):
            for parent in reversed(folder.parents):
                if parent.is_relative_to(closed_folder) and parent != closed_folder:
                    command += ["--dir", str(parent)]
            command += ["--bind", str(folder), str(folder)]
    number = str(user)
    return [
        *command,
        "--",
        setpriv,
        "--reuid",
        number,
        "--regid",
        number,
        "--clear-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--",
    ]


def _main() -> None:
    folder, settings, network, *command = sys.argv[1:]
    root = Path(folder)
    work = root / "cache" / "work" / "one"
    work.mkdir(parents=True, exist_ok=True)
    sandbox = Sandbox(
        BuilderSettings(**{"sandbox": "require", **json.loads(settings)}),
        root / "cache",
        [root / "secrets", root / "cache"],
    )
    job = BuildJob("k", "one", "red", "r", root / "log", threading.Event())
    ended = sandbox.run(job, command, work=work, timeout=60, network=network == "1")
    sys.stdout.write(ended.output if ended.code == 0 else json.dumps({"failed": ended.output}))


if __name__ == "__main__":
    _main()
