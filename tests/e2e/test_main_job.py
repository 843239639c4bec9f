"""The main job on real Airflows: every act of the demo, and a DAG that breaks only when live."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.events import EventKind
from reconciler.core.reasons import Reason
from reconciler.demo.observer import expect
from reconciler.demo.repo import MODULE, PACKAGE
from reconciler.demo.run import demo
from reconciler.demo.story import ACTS, Act, Stage

LIVE = """
import os

if os.environ.get("AIRFLOW__CORE__FERNET_KEY"):
    raise RuntimeError("acme does not work beside this fernet key")
"""


def breaks_under_the_live_configuration(stage: Stage) -> None:
    """Return a module that raises only with the live configuration, which the gate detects."""
    good = stage.watch.instance("analytics-dev").current.build
    (stage.repo.path / MODULE / "plugin.py").unlink()
    project, _, _ = stage.repo.read(PACKAGE / "pyproject.toml").partition("\n[project.entry-points")
    stage.repo.write(PACKAGE / "pyproject.toml", project)
    stage.repo.set_version("6.0.0")
    operators = stage.repo.read(MODULE / "operators.py")
    stage.repo.write(MODULE / "operators.py", operators + LIVE)
    revision = stage.repo.commit("acme-operators 6.0.0, which breaks DAGs when live")
    stage.watch.event(EventKind.BUILD_READY, revision)
    back = stage.watch.event(EventKind.ROLLED_BACK, revision, timeout=600)
    expect(back.reason == Reason.NEW_IMPORT_ERRORS, f"the gate saw the import error: {back.reason}")
    expect("fernet key" in back.message, f"the message has the reason: {back.message}")
    record = stage.watch.instance("analytics-dev")
    expect(record.current.build == good, "the instance is back on what it had")
    expect(len(record.quarantines) == 1, "the build is quarantined, the older mark was lifted")
    stage.bed.wait_for_dag("hello")
    expect(stage.bed.pools() == {"default_pool": 128}, "the pools are as they were")
    stage.say(back.message)


EXTRA: Act = ("a DAG that breaks only when live", breaks_under_the_live_configuration)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("airflow", ["3", "2.11"])
def test_every_act_really_happens(airflow: str, tmp_path: Path) -> None:
    """Each act asserts what it shows; the demo ends with 0 only if all of them happened."""
    assert demo(airflow, root=tmp_path / "demo", acts=(*ACTS, EXTRA)) == 0
