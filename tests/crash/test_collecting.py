"""kill -9 in the middle of a collection of garbage, while a task runs on an old build."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.crash.lanes import Lane, Task
from tests.fakes.airflow_rest import FakeAirflow
from tests.fakes.site import GOOD

NO_GRACE = {"GROUNDCREW_GC__GRACE": "0", "GROUNDCREW_GC__KEEP": "1"}


def age(share: Path) -> None:
    """Nothing on the share is new any more."""
    then = time.time() - 86400.0
    for top in (share / "builds", share / "store" / "sha256"):
        for path in sorted(top.rglob("*"), reverse=True):
            os.utime(path, (then, then), follow_symlinks=False)


def builds(lane: Lane) -> set[str]:
    """What is on the share, whole or not."""
    return {path.name for path in (lane.site.root / "share" / "builds").glob("[0-9a-f]*")}


def collected(lane: Lane, **variables: str) -> int:
    """One `groundcrew gc`; its exit code."""
    age(lane.site.root / "share")
    code, output = lane.site.run("gc", **NO_GRACE, **variables)
    assert "Traceback" not in output
    return code


@pytest.mark.slow
def test_a_collection_that_is_killed_takes_nothing_from_a_running_task(tmp_path: Path) -> None:
    """The task's build stays while it runs, whoever was killed; what nobody can use goes."""
    with FakeAirflow() as airflow:
        lane = Lane(tmp_path, airflow, "2.0", GOOD)
        assert lane.run() == 0
        second = lane.pointed()
        time.sleep(1.5)  # the kernel gives the start of a process by whole seconds of its boot
        with Task(lane.site) as task:
            assert task.began == [second, "2.0"]
            for version in ("3.0", "4.0"):  # then neither current nor the one before
                lane.site.commit(version)
                assert lane.run() == 0, lane.log.read_text()[-3000:]
            assert lane.first in builds(lane)
            for point in ("share.gc.before-remove", "share.gc.renamed"):
                assert collected(lane, GROUNDCREW_FAILPOINT=point) == 137
                assert second in builds(lane)
            assert collected(lane) == 0
            assert second in builds(lane)
            assert lane.first not in builds(lane)
            assert task.end() == [second, "2.0"]
        assert collected(lane) == 0
        assert second not in builds(lane)
        lane.check_promises("after the collections")
