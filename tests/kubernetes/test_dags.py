"""Parsing of a release's DAGs with a build before the switch, in a pod of its own namespace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.errors import Stalled
from reconciler.core.phases import BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from tests.fakes.releases import Release
from tests.harness.cluster_daemon import GOOD, KubeSite
from tests.harness.dag_builder import DAG, DagBench
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab


@pytest.fixture
def release(lab: Lab, tmp_path: Path) -> Iterator[DagBench]:
    with DagBench(lab, tmp_path) as bench:
        yield bench


def test_a_name_that_a_build_drops_is_found_in_a_live_dag(release: DagBench) -> None:
    """The DAG parses with the active build and not with the new one, which is refused."""
    (release.dags / "good.py").write_text("from airflow import __version__\n")
    (release.dags / "daily.py").write_text(DAG.format(name="old_name"))
    first = release.made(old_name="1")
    check = release.check(first)
    assert (check.seen, check.failing, check.unjudged, check.unseen) == (2, (), (), "")
    assert check.names == ("daily.py", "good.py")
    assert "airflow-dags" in check.source
    release.activate(first)
    second = release.made(new_name="1")
    with pytest.raises(Stalled) as caught:
        release.check(second)
    assert caught.value.reason == Reason.VERIFICATION_FAILED
    assert "daily.py of instance red-dev" in caught.value.message
    assert f"parses with the active build {first}" in caught.value.message
    assert "cannot import name 'old_name'" in caught.value.message
    wait_for(lambda: not release.dag_jobs(), 20, "the Jobs to be gone")
    assert not list((release.share.root / "staging").iterdir())


def test_what_fails_already_or_cannot_be_judged_is_told_apart(release: DagBench) -> None:
    """Only new errors count: hanging, forking, dying and needy files are named, not refused."""
    texts = {
        "gone.py": "import nowhere_to_be_found\n",
        "needs.py": "raise KeyError('Variable region does not exist')\n",
        "hangs.py": "import time\ntime.sleep(600)\n",
        "dies.py": "import os\nos._exit(3)\n",
        "forks.py": "import subprocess\nsubprocess.Popen(['sleep', '600'])\n",
    }
    for name, text in texts.items():
        (release.dags / name).write_text(text)
    check = release.check(release.made(old_name="1"))
    assert check.seen == 5
    assert check.failing == ("gone.py",)
    why = dict(check.unjudged)
    assert why.keys() == {"needs.py", "hangs.py", "dies.py", "forks.py"}
    assert "variable" in why["needs.py"]
    assert "does not end" in why["hangs.py"]
    assert "ends its own process" in why["dies.py"]
    assert "leaves processes" in why["forks.py"]


def test_without_the_right_to_make_jobs_dags_stay_unseen_and_the_build_goes_on(
    lab: Lab, tmp_path: Path
) -> None:
    """The result says what to do; no Job was made."""
    with DagBench(lab, tmp_path, granted=False) as bench:
        (bench.dags / "daily.py").write_text("import nowhere_to_be_found\n")
        check = bench.check(bench.made(old_name="1"))
        assert check.seen == 0
        assert f"may not make Jobs in namespace {bench.airflow}" in check.unseen
        assert "verifyDags" in check.unseen
        assert not bench.dag_jobs()


def test_a_commit_that_breaks_a_live_dag_touches_nothing(lab: Lab, tmp_path: Path) -> None:
    """The whole way: the build fails by the DAG's name, and the release is not restarted."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "daily.py").write_text("from acme import old_name\n")
    release = Release(
        version="3.1.0",
        volumes=({"name": "dags", "hostPath": {"path": str(dags)}},),
        mounts=({"name": "dags", "mountPath": "/opt/airflow/dags"},),
    )
    (tmp_path / "site").mkdir()
    with KubeSite(lab, tmp_path / "site") as site:
        target = site.instance("red-dev", "red", release)
        site.environment("red", "red-dev", version="1.0", text=GOOD + "old_name = 1\n")
        site.commit()
        with site.daemon():
            first = site.active("red-dev", "1.0", seconds=120)
            starts = len(target.airflow.state.loaded)
            site.environment("red", "red-dev", version="2.0")
            site.commit()

            def failed() -> str:
                builds = site.store().load().builds.values()
                refused = [b.problem for b in builds if b.phase is BuildPhase.FAILED and b.problem]
                return refused[0].message if refused else ""

            message = wait_for(failed, 90, "the build to be refused")
            assert "daily.py of instance red-dev parses with the active build" in message
            (instance,) = status(None, site.store().load(), 0.0).instances
            assert site.record("red-dev") is not None
            assert instance.build == first.current.build
            assert instance.dags is not None
            assert instance.dags.names == ("daily.py",)
            assert len(target.airflow.state.loaded) == starts
        assert "DagsParsed instance/red-dev" in site.events()
