"""Commands start fast: they import what they need, and the daemon what it needs at its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.store.store import Store
from tests.fakes.fleet import fill

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
    store = Store(f"sqlite:///{tmp_path}/state/groundcrew.db")
    fill(store, 1)
    store.close()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "reconciler.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "GROUNDCREW_STATE_DIR": str(tmp_path / "state"),
        },
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "reconciler" in imported
    assert imported & spared == set()


def test_a_server_is_asked_without_what_only_the_records_need(tmp_path: Path) -> None:
    """A laptop needs no database, and nothing of what the daemon works with."""
    code = "import reconciler.cli.app, reconciler.cli.sources.server, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=True,
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "httpx" in imported
    assert imported & ((HEAVY | {"sqlalchemy", "pydantic_settings"}) - {"httpx"}) == set()
