"""Components that were started without the loader, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow.local import LocalDriver
from reconciler.core.errors import Stalled
from reconciler.core.model import BARE, Deployment
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.doctor.airflow import look_local
from reconciler.doctor.findings import Level
from reconciler.settings import LocalSettings, Settings
from tests.fakes.activations import loading
from tests.harness.local_driver import FAILED, OK, Rig, problem

LIVE = "print(flush=True); import time; time.sleep(60)"


@contextmanager
def component(home: Path, *words: str, loader: Path | None = None) -> Iterator[int]:
    """Run a process of the instance's interpreter; yield its pid."""
    variables = {"AIRFLOW_HOME": str(home)} | ({"PYTHONPATH": str(loader)} if loader else {})
    command = [sys.executable, "-Sc", LIVE, *(words or ("airflow", "scheduler"))]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # now its command line is final
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("loader", ["", "/srv/share/instances/other-dev/loader", "/opt/plugins"])
def test_a_component_without_the_loader_fails_the_probe(
    rig: Rig, tmp_path: Path, loader: str
) -> None:
    """The message says what to set, however healthy Airflow is; the build is not to blame."""
    rig.restart()
    with component(tmp_path, loader=Path(loader) if loader else None) as pid:
        result = rig.do(Step.PROBE)
    assert (result.verdict, problem(result).reason) == (FAILED, Reason.LOADER_MISSING)
    assert f"scheduler (pid {pid})" in problem(result).message
    assert "PYTHONPATH=<share>/instances/red-dev/loader" in problem(result).message
    assert problem(result).reason.policy.blameless


def test_with_the_loader_the_gate_opens(rig: Rig, tmp_path: Path) -> None:
    """The same process has PYTHONPATH set."""
    rig.restart()
    with component(tmp_path, loader=tmp_path / "instances" / "red-dev" / "loader"):
        assert rig.do(Step.PROBE) == OK


def test_the_way_back_and_the_bare_base_need_no_loader(rig: Rig, tmp_path: Path) -> None:
    """A build that worked without it works again; the bare base has nothing to load."""
    rig.restart()
    with component(tmp_path):
        assert rig.do(Step.PROBE_BACK) == OK
        rig.activation = replace(rig.activation, target=BARE)
        assert rig.do(Step.PROBE) == OK


def test_the_next_activation_stops_before_anything_is_touched(rig: Rig, tmp_path: Path) -> None:
    """A process that started beside the loader, and does not have it, would do so again."""
    share = tmp_path / "share"
    rig.driver = LocalDriver(
        LocalSettings(allow=(sys.executable,)), rig.secret.parents[1], share=share
    )
    loader = share / "instances" / "red-dev" / "loader" / "sitecustomize.py"
    loader.parent.mkdir(parents=True)
    with component(tmp_path):
        assert rig.do(Step.OBSERVE).verdict is Verdict.OK, "there is no loader yet"
        loader.touch()
        os.utime(loader, (time.time() + 60,) * 2)
        assert rig.do(Step.OBSERVE).verdict is Verdict.OK, "it started before there was one"
        os.utime(loader, (1, 1))
        with pytest.raises(Stalled) as caught:
            rig.do(Step.OBSERVE)
        assert caught.value.reason is Reason.LOADER_MISSING
        assert f"PYTHONPATH={loader.parent}" in caught.value.message
        rig.activation = replace(rig.activation, target=BARE)
        assert rig.do(Step.OBSERVE).verdict is Verdict.OK, "the bare base needs none"
    rig.activation = replace(rig.activation, target=Deployment("b" * 16, load_into=("scheduler",)))
    with component(tmp_path, loader=loader.parent):
        assert rig.do(Step.OBSERVE).verdict is Verdict.OK


def test_only_components_that_load_the_build_need_it(rig: Rig, tmp_path: Path) -> None:
    """If only the triggerer loads the build, a scheduler without the loader is correct."""
    rig.restart()
    rig.activation = loading(rig.activation, ("triggerer",))
    with component(tmp_path):
        assert rig.do(Step.PROBE) == OK
    with component(tmp_path, "/x/bin/airflow", "triggerer", "--capacity", "9"):
        assert problem(rig.do(Step.PROBE)).reason == Reason.LOADER_MISSING


def test_other_processes_are_not_taken_for_components(rig: Rig, tmp_path: Path) -> None:
    """Another Airflow of the same interpreter, a command in a shell, and the old process."""
    with component(tmp_path), component(tmp_path, "airflow", "triggerer"):
        time.sleep(0.1)
        rig.restart()  # both began before it
        rig.now = time.time()  # and probing begins after it
        with (
            component(tmp_path / "other"),
            component(tmp_path, "airflow", "config", "get-value", "scheduler", "x"),
        ):
            answer = rig.do(Step.PROBE)
            assert answer == OK, answer.problem


def test_the_doctor_says_so_before_the_first_build(rig: Rig, tmp_path: Path) -> None:
    """It checks the running processes; with the loader set, all is well."""
    settings = Settings(
        share=tmp_path / "share",
        secrets_dir=tmp_path / "secrets",
        local=LocalSettings(allow=(sys.executable,)),
    )
    with component(tmp_path) as pid:
        (finding,) = look_local(settings, rig.instance)
    assert (finding.level, finding.reason) == (Level.WRONG, Reason.LOADER_MISSING)
    loader = tmp_path / "share" / "instances" / "red-dev" / "loader"
    assert f"scheduler (pid {pid})" in finding.message
    assert f"PYTHONPATH={loader}" in finding.message
    with component(tmp_path, loader=loader):
        (finding,) = look_local(settings, rig.instance)
    assert finding.level is Level.OK
