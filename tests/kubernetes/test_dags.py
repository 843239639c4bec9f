"""Parsing of a release's DAGs with a build before the switch, in a pod of its own namespace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.errors import Stalled
from tests.fakes.dagbench import DAG, DagBench
from tests.fakes.kubeapi import wait_for
from tests.fakes.lab import Lab


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
    assert caught.value.reason == "VerificationFailed"
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
