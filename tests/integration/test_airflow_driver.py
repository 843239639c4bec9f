"""The local driver against the fake Airflow 2.x and 3.x, except the gate; its commands are real."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow import commands, rest, steps
from reconciler.airflow.local import LocalDriver
from reconciler.core.definitions import Api, Instance, LocalTarget, OnTimeout, Place
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.model import Problem
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.settings import LocalSettings
from tests.fakes.activations import loading
from tests.fakes.airflow_rest import PASSWORD, TOKEN, FakeAirflow
from tests.harness.local_driver import FAILED, NOT_YET, OK, Rig, problem, python

# ------------------------------------------------------------------------------------- observing


def test_observing_reports_everything_page_by_page(rig: Rig) -> None:
    """Pools, broken files and DAGs are all reported, even if the API returns three at a time."""
    rig.airflow.page = 3
    state = rig.airflow.state
    state.pools = {f"pool {n}/é": n for n in range(7)}
    state.dags = {f"dag{n}": 1.0 for n in range(8)}
    state.stale = {"dag7"}
    state.errors = {f"/dags/bad{n}.py": ("boom", 1.0) for n in range(4)}
    result = rig.do(Step.OBSERVE)
    assert dict(result.pools or ()) == state.pools
    assert result.baseline == tuple(sorted(state.errors))
    assert result.expected_dags == tuple(f"dag{n}" for n in range(7))


def test_observing_changes_nothing(rig: Rig) -> None:
    """An observation returns what must be recorded before the first change, and changes nothing."""
    rig.do(Step.OBSERVE)
    assert rig.airflow.state.patched == []


def test_observing_reports_what_decides_who_is_restarted(rig: Rig, tmp_path: Path) -> None:
    """That is the components, names in the configuration, and plugins that may import anything."""
    (tmp_path / "config").mkdir()
    settings = "# like old.module.Class\n[secrets]\nbackend = acme.x.Y\n"
    (tmp_path / "airflow.cfg").write_text(settings)
    (tmp_path / "config" / "airflow_local_settings.py").write_text("from rules import policy\n")
    rig.airflow.state.plugins = ["acme-plugin"]
    layout = rig.do(Step.OBSERVE).layout
    assert layout is not None
    assert layout.components == ("api-server", "dag-processor", "scheduler", "triggerer")
    assert layout.configured == ("acme", "rules")
    assert (layout.scheduler_runs_tasks, layout.unknown) == (True, "")
    rig.airflow.state.loose_plugins = ["$PLUGINS_FOLDER/mine.py"]
    unknown = rig.do(Step.OBSERVE).layout
    assert unknown is not None
    assert unknown.unknown == "the plugin $PLUGINS_FOLDER/mine.py may import anything"


def test_a_configuration_that_cannot_be_read_leaves_nothing_running(
    rig: Rig, tmp_path: Path
) -> None:
    """It may name any module."""
    (tmp_path / "airflow.cfg").mkdir()
    layout = rig.do(Step.OBSERVE).layout
    assert layout is not None
    assert "cannot be read" in layout.unknown


STEPS = (Step.OBSERVE, Step.PAUSE, Step.DRAIN, Step.RELEASE)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("drop", "AirflowUnreachable", "cannot be reached"),
        ("slow", "AirflowUnreachable", "did not answer in time"),
        ("401", "AirflowDenied", "renew the secret <secrets_dir>/red/airflow/"),
        ("403", "AirflowDenied", "renew the secret <secrets_dir>/red/airflow/"),
        ("html", "AirflowUnexpected", "check that this is the URL of Airflow's API"),
        ("not-json", "AirflowUnexpected", "answered 200"),
        ("429", "AirflowUnexpected", "answered 429"),
        ("500", "AirflowUnexpected", "answered 500"),
    ],
)
def test_every_fault_of_the_api_is_retryable_in_words(
    rig: Rig, step: Step, fault: str, reason: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the API does, a step reports it with a reason and without the password."""
    rig.do(Step.OBSERVE)
    if fault == "slow":
        make = rest.AirflowApi
        monkeypatch.setattr(steps, "AirflowApi", lambda *a, **k: make(*a, **k, timeout=0.2))
        rig.airflow.state.slow = 2.0
    rig.airflow.state.fault = fault
    rig.airflow.state.fault_on = "/pools" if step is not Step.DRAIN else "/taskInstances"
    with pytest.raises(Retryable, match=words) as caught:
        rig.do(step)
    assert caught.value.reason == reason
    assert PASSWORD not in caught.value.message
    assert TOKEN not in caught.value.message


@pytest.mark.parametrize("fault", ["drop", "html", "500", "429"])
def test_a_fault_of_every_path_is_retryable(rig: Rig, fault: str) -> None:
    """Even the request for the Airflow version may fail; that is retried."""
    rig.airflow.state.fault = fault
    with pytest.raises(Retryable):
        rig.do(Step.OBSERVE)


def test_an_airflow_that_is_gone_is_retryable(three: Rig) -> None:
    """A refused connection names the address."""
    three.instance = replace(three.instance, api=Api("http://127.0.0.1:1", "airflow"))
    with pytest.raises(Retryable, match=r"Airflow at http://127\.0\.0\.1:1 cannot be reached"):
        three.do(Step.OBSERVE)


def test_an_unlimited_pool_that_2x_cannot_list_is_told(tmp_path: Path) -> None:
    """Airflow 2.x answers 500 if a pool has no limit: the message says what to change."""
    with FakeAirflow("2") as airflow:
        airflow.state.pools["endless"] = -1
        with pytest.raises(Retryable, match="no limit"):
            Rig(airflow, tmp_path).do(Step.OBSERVE)


# --------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("name", ["username", "password"])
def test_wrong_credentials_are_denied(rig: Rig, name: str) -> None:
    """The message names the secret, shows none of it, and says what else Airflow 2.x needs."""
    (rig.secret / name).write_text("wr0ng-s3cret")
    with pytest.raises(Retryable, match="refuses the credentials") as caught:
        rig.do(Step.OBSERVE)
    assert caught.value.reason == Reason.AIRFLOW_DENIED
    told = "basic_auth in api.auth_backends" in caught.value.message
    assert told == (rig.airflow.airflow == "2")
    assert "wr0ng-s3cret" not in caught.value.message


@pytest.mark.parametrize("fault", ["400", "422", "500"])
def test_a_login_that_repeats_what_it_was_sent_tells_no_password(three: Rig, fault: str) -> None:
    """Validation errors of Airflow 3.x contain the whole input; the message does not."""
    three.airflow.state.fault, three.airflow.state.fault_on = fault, "/auth/token"
    with pytest.raises(Retryable) as caught:
        three.do(Step.OBSERVE)
    assert PASSWORD not in caught.value.message


@pytest.mark.parametrize("token", [b"t0p-secret\nof two lines", b"t0p-secret-\xff\xfe"])
def test_a_token_that_fits_no_header_is_denied(three: Rig, token: bytes) -> None:
    """The error of the HTTP library would contain the token."""
    (three.secret / "token").write_bytes(token)
    with pytest.raises(Retryable) as caught:
        three.do(Step.OBSERVE)
    assert caught.value.reason == Reason.AIRFLOW_DENIED
    assert "t0p-secret" not in str(caught.value.message)


def test_a_ready_token_is_used(three: Rig) -> None:
    """A secret with a token needs no login."""
    (three.secret / "token").write_text(TOKEN + "\n")
    three.airflow.state.fault, three.airflow.state.fault_on = "500", "/auth/token"
    assert three.do(Step.OBSERVE).verdict is Verdict.OK


def test_a_token_that_ended_is_renewed_once(three: Rig) -> None:
    """A 401 in the middle of a step causes another login, not a failure."""
    with rest.AirflowApi(three.airflow.url, three.secret) as api:
        api.pools()
        three.airflow.state.token = "a-newer-token"
        assert api.pools() == three.airflow.state.pools


def test_an_executable_that_is_not_allowed_is_stalled(three: Rig) -> None:
    """Authors of definitions can only run commands that are in the settings."""
    three.component("scheduler", restart=("/bin/sh", "-c", "true"))
    with pytest.raises(Stalled, match=r"local\.allow"):
        three.do(Step.RESTART)


@pytest.mark.parametrize("step", [Step.RELEASE, Step.RELEASE_BACK, Step.RELEASE_ABORT])
def test_pools_come_back_though_a_command_is_no_longer_allowed(three: Rig, step: Step) -> None:
    """If a command is forbidden during the drain, the drain ends and the pools are restored."""
    before = dict(three.airflow.state.pools)
    three.do(Step.OBSERVE)
    three.do(Step.PAUSE)
    three.component("scheduler", restart=("/bin/sh", "-c", "true"))
    with pytest.raises(Stalled, match=r"local\.allow"):
        three.do(Step.DRAIN)
    assert set(three.airflow.state.pools.values()) == {0}
    assert three.do(step) == OK
    assert three.airflow.state.pools == before


# ------------------------------------------------------------------------------------- the drain


def test_pools_are_paused_and_restored_exactly(rig: Rig) -> None:
    """Pools get their earlier values back; those that were at 0 stay at 0."""
    before = {"default_pool": 128, "small": 3, "closed": 0}
    rig.airflow.state.pools = dict(before)
    rig.do(Step.OBSERVE)
    assert rig.do(Step.PAUSE) == OK
    assert set(rig.airflow.state.pools.values()) == {0}
    assert rig.do(Step.RELEASE) == OK
    assert rig.airflow.state.pools == before
    assert "closed" not in dict(rig.airflow.state.patched)


def test_an_unlimited_pool_comes_back_unlimited(three: Rig) -> None:
    """-1 is restored like any number."""
    three.airflow.state.pools["a/b"] = -1
    three.do(Step.OBSERVE)
    three.do(Step.PAUSE)
    assert three.airflow.state.pools["a/b"] == 0
    three.do(Step.RELEASE_BACK)
    assert three.airflow.state.pools["a/b"] == -1


def test_a_pool_that_a_person_changed_meanwhile_is_left(rig: Rig) -> None:
    """A person's change during the drain is not overwritten, and a deleted pool is no error."""
    rig.airflow.state.pools |= {"gone": 2}
    rig.do(Step.OBSERVE)
    rig.do(Step.PAUSE)
    rig.airflow.state.pools["small"] = 7
    del rig.airflow.state.pools["gone"]
    assert rig.do(Step.RELEASE_ABORT) == OK
    assert rig.airflow.state.pools == {"default_pool": 128, "small": 7}


def test_a_pool_made_after_the_observation_is_not_paused(rig: Rig) -> None:
    """Nobody would know which value to restore."""
    rig.do(Step.OBSERVE)
    rig.airflow.state.pools["new"] = 5
    rig.do(Step.PAUSE)
    assert rig.airflow.state.pools == {"default_pool": 0, "small": 0, "new": 5}


def test_pausing_and_releasing_twice_is_harmless(rig: Rig) -> None:
    """After a crash a step is simply repeated."""
    rig.do(Step.OBSERVE)
    for step in (Step.PAUSE, Step.PAUSE, Step.RELEASE, Step.RELEASE):
        assert rig.do(step) == OK
    assert rig.airflow.state.pools == {"default_pool": 128, "small": 3}


def test_the_drain_waits_for_running_tasks(rig: Rig) -> None:
    """The step is unfinished, and gives their number, while tasks run; done when none does."""
    rig.airflow.state.busy = 2
    result = rig.do(Step.DRAIN, after=59)
    assert (result.verdict, problem(result).message) == (NOT_YET, "2 tasks still run")
    rig.airflow.state.busy = 0
    assert rig.do(Step.DRAIN, after=61) == OK


@pytest.mark.parametrize("down", [False, True])
def test_at_its_deadline_the_drain_is_given_up_or_goes_on(rig: Rig, down: bool) -> None:
    """`abort` gives up with a message, `proceed` continues, also if Airflow no longer answers."""
    rig.airflow.state.busy = 2
    rig.airflow.state.fault = "drop" if down else ""
    result = rig.do(Step.DRAIN, after=61)
    assert (result.verdict, problem(result).reason) == (FAILED, Reason.DRAIN_TIMEOUT)
    assert "not drained within 60 s" in problem(result).message
    assert ("cannot be reached" if down else "2 tasks still run") in problem(result).message
    rig.instance = replace(rig.instance, on_timeout=OnTimeout.PROCEED)
    assert rig.do(Step.DRAIN, after=61) == OK


# ----------------------------------------------------------------------------------- the restart


def test_only_components_that_load_a_build_are_restarted_the_server_last(three: Rig) -> None:
    """The other components keep running, and the API answers while the workers start."""
    names = ("scheduler", "api-server")
    three.activation = loading(three.activation, names, ("scheduler",))
    assert three.do(Step.RESTART) == OK
    assert [said["component"] for said in three.airflow.state.loaded] == list(names)


def test_a_restart_command_that_fails_is_told_in_words(three: Rig) -> None:
    """The message has the component, the exit code and the command's output."""
    three.component("triggerer", restart=python("import sys; sys.exit('no such unit')"))
    result = three.do(Step.RESTART)
    assert result.verdict is FAILED
    assert problem(result) == Problem(
        Reason.RESTART_FAILED, "restarting triggerer failed with code 1: no such unit"
    )


def test_a_restart_command_that_is_gone_is_told_in_words(three: Rig, tmp_path: Path) -> None:
    """The message names a command that was removed from the machine."""
    gone = str(tmp_path / "gone")
    three.driver = LocalDriver(LocalSettings(allow=("*",)), tmp_path / "secrets")
    three.component("triggerer", restart=(gone,))
    assert f"{gone}: No such file" in problem(three.do(Step.RESTART_BACK)).message


def test_a_restart_command_that_hangs_is_ended_with_all_it_started(
    three: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step fails with a message, and no process of the command survives."""
    monkeypatch.setattr(commands, "COMMAND_TIMEOUT", 3.0)
    three.activation = loading(three.activation, ("scheduler",), ())
    pid = tmp_path / "pid"
    child = "import time; time.sleep(60)"
    three.component(
        "scheduler",
        restart=python(
            f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
            f"open({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"
        ),
    )
    result = three.do(Step.RESTART)
    assert problem(result).reason == Reason.RESTART_FAILED
    assert problem(result).message.endswith("failed with code 124: no end within 3 s")
    assert _ended(int(pid.read_text()))


def test_a_restart_command_may_leave_its_component_running(three: Rig, tmp_path: Path) -> None:
    """A background process that still holds the command's output does not delay the step."""
    pid = tmp_path / "pid"
    three.component(
        "scheduler",
        restart=python(
            "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
            f"'import time; time.sleep(60)']); open({str(pid)!r}, 'w').write(str(p.pid))"
        ),
    )
    assert three.do(Step.RESTART) == OK
    running = int(pid.read_text())
    assert not _ended(running, patience=0)
    subprocess.run(["kill", "-9", str(running)], check=True)


def _ended(pid: int, patience: float = 10.0) -> bool:
    """Return True if a process has ended or is a zombie."""
    deadline = time.monotonic() + patience
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)


# ------------------------------------------------------------------------------------- processes


NAME = "holds-builds"  # of no other test's instance, as tests may run in parallel


@pytest.mark.parametrize(("share", "counts"), [("ours", True), ("other", False), ("unseen", True)])
def test_a_process_holds_the_builds_of_its_own_share(
    tmp_path: Path, share: str, *, counts: bool
) -> None:
    """An instance of that name may be on another share; an unknown path may be on ours."""
    for name in ("ours", "other"):
        (tmp_path / name / "instances" / NAME / "loader").mkdir(parents=True)
    driver = LocalDriver(LocalSettings(allow=("*",)), tmp_path, share=tmp_path / "ours")
    local = LocalTarget(str(tmp_path / "base" / "bin" / "python"), str(tmp_path), ())
    instance = Instance(NAME, "red", Place("i.yaml"), Api("http://127.0.0.1:1"), local)
    now = time.time() + 3600
    loader = str(tmp_path / share / "instances" / NAME / "loader")
    variables = {**os.environ, "PYTHONPATH": f"/nowhere{os.pathsep}{loader}"}
    with subprocess.Popen(["sleep", "60"], env=variables) as process:
        oldest = driver.oldest_process(instance, now)
        process.kill()
    assert (oldest != now) is counts
