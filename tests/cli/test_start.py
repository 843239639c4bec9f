"""Commands start fast: they import what they need, and the daemon what it needs at its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"cyclonedx", "fastapi", "git", "httpx", "kubernetes", "prometheus_client", "slack_sdk"}
RECORDS = {"pydantic", "sqlalchemy"}


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [
        (["--help"], HEAVY | RECORDS),
        (["status"], HEAVY),
        (["history", "dev"], HEAVY),
        (["rollback", "dev"], HEAVY),
        (["validate", "."], (HEAVY | {"sqlalchemy"}) - {"git"}),
        (["run"], {"cyclonedx", "git", "kubernetes", "slack_sdk"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_imports_little(arguments: list[str], spared: set[str], tmp_path: Path) -> None:
    """`python -X importtime` names every module that was imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "reconciler.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "reconciler" in imported
    assert imported & spared == set()
