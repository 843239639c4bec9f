"""Settings of a local Airflow, from the variables of its running processes and its airflow.cfg."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.builder.verify.dags import dagbag_timeout, dags_folder
from reconciler.core.definitions import Api, Component, Instance, LocalTarget, Place
from reconciler.local_processes import component_processes

TIMEOUT, FOLDER = "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "AIRFLOW__CORE__DAGS_FOLDER"


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """Return an instance whose airflow.cfg allows a DAG file 45 seconds."""
    (tmp_path / "airflow.cfg").write_text("[core]\ndagbag_import_timeout = 45\n")
    parts = (Component("scheduler", ("true",)), Component("triggerer", ("true",)))
    local = LocalTarget(sys.executable, str(tmp_path), parts)
    return Instance("red-dev", "red", Place("i.yaml"), Api("http://127.0.0.1:1"), local)


@contextmanager
def running(home: Path, component: str = "scheduler", **variables: str) -> Iterator[None]:
    """Run a process that looks like a component of an Airflow."""
    command = [sys.executable, "-Sc", "print(flush=True); input()", "airflow", component]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"AIRFLOW_HOME": str(home), **variables},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def test_without_a_process_the_file_counts(instance: Instance, tmp_path: Path) -> None:
    """An Airflow that is down has its airflow.cfg, and Airflow's defaults."""
    assert dagbag_timeout(instance) == 45.0
    assert dags_folder(instance) == tmp_path / "dags"


def test_variables_of_a_running_process_win(instance: Instance, tmp_path: Path) -> None:
    """As in Airflow itself; one without the variable says nothing."""
    with running(tmp_path, "triggerer"), running(tmp_path, **{TIMEOUT: "7", FOLDER: "/srv/dags"}):
        assert dagbag_timeout(instance) == 7.0
        assert dags_folder(instance) == Path("/srv/dags")


def test_a_setting_that_is_no_number_is_airflows_default(
    instance: Instance, tmp_path: Path
) -> None:
    """Airflow itself would not start with it."""
    with running(tmp_path, **{TIMEOUT: "soon"}):
        assert dagbag_timeout(instance) == 30.0


@pytest.mark.parametrize("variable", [TIMEOUT + "_CMD", TIMEOUT + "_SECRET"])
def test_commands_and_secrets_in_variables_are_not_followed(
    instance: Instance, tmp_path: Path, variable: str
) -> None:
    """The daemon runs nothing that an Airflow's environment names."""
    with running(tmp_path, **{variable: f"touch {tmp_path}/ran"}):
        assert dagbag_timeout(instance) == 45.0
    assert not (tmp_path / "ran").exists()


def test_another_airflow_of_the_same_interpreter_says_nothing(
    instance: Instance, tmp_path: Path
) -> None:
    """It has a home of its own, or runs no component of this instance."""
    with (
        running(tmp_path / "other", **{TIMEOUT: "7"}),
        running(tmp_path, "worker", **{TIMEOUT: "8"}),
    ):
        assert dagbag_timeout(instance) == 45.0
        assert instance.local is not None
        assert list(component_processes(instance.local, ["scheduler", "triggerer"])) == []
