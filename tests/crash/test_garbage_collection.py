"""Kill -9 during garbage collection, while a task runs on an old build."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from tests.crash.lanes import Lane, Task
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import COMPONENTS, GOOD, INSTANCE

NO_GRACE = {"GROUNDCREW_GC__GRACE": "0", "GROUNDCREW_GC__KEEP": "1"}


def age(share: Path) -> None:
    """Make everything on the share old."""
    then = time.time() - 86400.0
    for top in (share / "builds", share / "store" / "sha256"):
        for path in sorted(top.rglob("*"), reverse=True):
            os.utime(path, (then, then), follow_symlinks=False)


def builds(lane: Lane) -> set[str]:
    """Return the builds on the share, complete or not."""
    return {path.name for path in (lane.site.root / "share" / "builds").glob("[0-9a-f]*")}


def collected(lane: Lane, **variables: str) -> int:
    """Run `groundcrew gc`; return its exit code."""
    age(lane.site.root / "share")
    code, output = lane.site.run("gc", **NO_GRACE, **variables)
    assert "Traceback" not in output
    return code


@pytest.mark.slow
def test_a_collection_that_is_killed_takes_nothing_from_a_running_task(tmp_path: Path) -> None:
    """The task's build stays while it runs, whatever is killed; unusable builds are removed."""
    with FakeAirflow() as airflow:
        lane = Lane(tmp_path, airflow, "2.0", GOOD)
        definition = lane.site.instance()
        definition["spec"]["loadInto"] = [*COMPONENTS, "worker"]  # none keeps a build
        lane.site.write(f"instances/{INSTANCE}.yaml", yaml.safe_dump(definition))
        lane.site.save("restart all components each time")
        assert lane.run() == 0
        second = lane.pointed()
        time.sleep(1.5)  # the kernel reports the start of a process in whole seconds since boot
        with Task(lane.site) as task:
            assert task.began == [second, "2.0"]
            for version in ("3.0", "4.0"):  # then it is neither current nor the previous one
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
