"""Logs of failed builds on the share: limited, found in the right order, collected."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.phases import BuildPhase
from reconciler.share.logs import KEPT, collect_logs, keep_log, kept_logs
from reconciler.share.share import Share
from tests.fakes.fleet import builds

KEYS = ("0" * 16, "1" * 16, "2" * 16)


@pytest.fixture
def share(tmp_path: Path) -> Share:
    (tmp_path / "share").mkdir()
    share = Share(tmp_path / "share")
    share.prepare()
    return share


def test_the_end_of_a_long_log_is_kept(share: Share, tmp_path: Path) -> None:
    """The share keeps a limited, newest part; a later attempt replaces it."""
    log = tmp_path / "log"
    log.write_bytes(b"x" * KEPT + b"the end")
    keep_log(share, KEYS[0], log)
    kept = share.root / "logs" / f"{KEYS[0]}.log"
    assert kept.stat().st_size == KEPT
    assert kept.read_bytes().endswith(b"the end")
    log.write_text("another try")
    keep_log(share, KEYS[0], log)
    assert kept.read_text() == "another try"
    keep_log(share, KEYS[1], tmp_path / "none")
    assert len(list(kept.parent.iterdir())) == 1


def test_logs_go_with_their_builds(share: Share, tmp_path: Path) -> None:
    """A recorded build keeps its log; others lose it after the grace period."""
    log = tmp_path / "log"
    log.write_text("words")
    for key in KEYS:
        keep_log(share, key, log)
    folder = share.root / "logs"
    (folder / ".tmp-left").write_text("of a writer that was killed")
    for name in (KEYS[0], KEYS[1]):
        os.utime(folder / f"{name}.log", (0, 0))
    os.utime(folder / ".tmp-left", (0, 0))
    now = (folder / f"{KEYS[2]}.log").stat().st_mtime
    collect_logs(share, {KEYS[0]}, now, 60.0)
    assert {p.name for p in folder.iterdir()} == {f"{KEYS[0]}.log", f"{KEYS[2]}.log"}


def test_a_build_that_was_made_after_all_shows_its_own_log(share: Share) -> None:
    """The log of an earlier attempt comes first only until the build is made."""
    made = builds(0)[0]
    assert made.phase is BuildPhase.READY
    assert [p.name for p in kept_logs(share, made.key, made.build_id, made.phase)] == [
        "build.log",
        f"{made.key}.log",
    ]
    failed = replace(made, phase=BuildPhase.FAILED)
    assert [p.name for p in kept_logs(share, failed.key, failed.build_id, failed.phase)] == [
        f"{made.key}.log",
        "build.log",
    ]
