"""Minimal builds on a share, and the interpreters on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from reconciler.share.share import BaseName, Share

A, B, C = "a" * 16, "b" * 16, "c" * 16
DIGEST = "d" * 64
RUNTIME = "cp311-linux-airflow3.3.2-0123456789ab"
PYENV = Path("~/.pyenv/versions").expanduser()
INTERPRETERS = [
    sys.executable,
    *sorted(map(str, PYENV.glob("3.9.*/bin/python3"))),  # those that are on this machine
    *sorted(map(str, PYENV.glob("3.1[0-9].*/bin/python3"))),
]


def publish(share: Share, build: str, entries: tuple[str, ...] = (), **more: object) -> None:
    document = {"schema": 1, "build": build, "entries": list(entries), "paths": [], **more}
    share.put_build(build, {"pylock.toml": b"x", "build.json": json.dumps(document).encode()})


def point(share: Share, build: str | None, load_into: tuple[str, ...] = ("scheduler",)) -> None:
    share.point("dev", BaseName(RUNTIME, abi_of(sys.executable), "3.3.2"), build, load_into)


def abi_of(python: str) -> str:
    """Return the ABI of an interpreter's packages, in the form used in a build."""
    script = "import sys,os; u=os.uname(); print('cp%d%d-%s_%s' % (*sys.version_info[:2],"
    script += " u.sysname.lower(), u.machine))"
    return subprocess.run(
        [python, "-I", "-c", script], check=True, capture_output=True, text=True, timeout=20
    ).stdout.strip()
