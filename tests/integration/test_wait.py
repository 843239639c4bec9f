"""`--wait` of every request, with a real daemon that carries it out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.fakes.airflow_rest import FakeAirflow, State
from tests.harness.local_daemon import BAD_LIVE, ENVIRONMENT, GOOD, INSTANCE, TEAM, Site

PATIENCE = 600  # seconds for what takes some on an idle machine
ON_INSTANCE, ON_ENVIRONMENT = f"instance/{INSTANCE}", f"environment/{ENVIRONMENT}"


@dataclass
class Live:
    """A site whose daemon runs."""

    site: Site
    airflow: FakeAirflow

    def instance(self) -> dict[str, object]:
        (instance,) = self.site.status()["instances"]
        return dict(instance)

    def until(self, condition: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        deadline = time.monotonic() + PATIENCE
        while True:
            instance = self.instance()
            if condition(instance):
                return instance
            assert time.monotonic() < deadline, json.dumps(self.site.status(), indent=1)
            time.sleep(0.3)

    def count(self, kind: str) -> int:
        """Count the events of a kind."""
        store = self.site.store()
        try:
            return len(store.events(kinds=(kind,)))
        finally:
            store.close()

    def wait_until_active(self) -> None:
        """Wait until the daemon has made its records, and the first build is active."""
        deadline = time.monotonic() + PATIENCE
        while self.site.run("status")[0] != 0 or not self.site.status()["instances"]:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        self.until(lambda i: i["phase"] == "Active")

    def commit(self, version: str, text: str = GOOD) -> None:
        """Ask for a version, and wake the daemon."""
        self.site.commit(version, text)
        (self.site.root / "state" / "wake").touch()

    def activate(self, version: str) -> str:
        """Activate a version; its build."""
        before = self.instance()["build"]
        self.commit(version)
        active = self.until(lambda i: i["build"] != before and i["health"] == "Healthy")
        return str(active["build"])

    def wait_for(self, *request: str) -> subprocess.CompletedProcess[str]:
        """Run a request with --wait; its exit code, what it said, and its progress."""
        argv = [sys.executable, "-m", "reconciler.cli", *request, "--wait", f"--timeout={PATIENCE}"]
        return subprocess.run(
            argv,
            env=self.site.environment(),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("wait")
    with FakeAirflow() as airflow:
        site = Site(root / "site", airflow)
        site.commit("1.0")
        with (root / "log").open("w") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "reconciler.cli", "run"],
                env=site.environment(),
                stdout=log,
                stderr=log,
            )
            try:
                live = Live(site, airflow)
                live.wait_until_active()
                yield live
            finally:
                daemon.terminate()
                daemon.wait(timeout=60)


def test_a_rollback_and_a_retry_are_waited_for_to_the_end(live: Live) -> None:
    """With a line for each phase that is seen; what is said to be done is done."""
    first = live.instance()["build"]
    second = live.activate("2.0")
    done = live.wait_for("rollback", INSTANCE)
    assert done.returncode == 0, done
    assert f"rollback {ON_INSTANCE}: done; {INSTANCE} runs {first}" in done.stdout
    assert any(f"red-dev: {p}" in done.stderr for p in ("Draining", "Restarting", "Probing"))
    after = live.instance()
    assert (after["build"], after["phase"]) == (first, "Active")
    assert set(live.airflow.state.pools.values()) == set(State().pools.values())
    done = live.wait_for("retry", ON_INSTANCE)
    assert done.returncode == 0, done
    assert live.instance()["build"] == second


def test_a_rollback_that_fails_ends_with_1(live: Live) -> None:
    """And says why."""
    live.activate("2.1")
    live.airflow.state.restarts = {"scheduler": "refused"}
    done = live.wait_for("rollback", INSTANCE)
    live.airflow.state.restarts = {}
    assert done.returncode == 1, done
    assert "done" not in done.stdout
    assert "[RestartFailed] restarting scheduler failed" in done.stderr
    live.until(lambda i: i["health"] == "Healthy")


def test_an_interrupted_wait_says_that_the_request_goes_on(live: Live) -> None:
    """Ctrl-C ends the command, and nothing else."""
    before = live.instance()["build"]
    live.activate("2.2")
    live.airflow.state.busy = 1
    argv = [sys.executable, "-m", "reconciler.cli", "rollback", INSTANCE, "--wait"]
    with subprocess.Popen(
        argv, env=live.site.environment(), text=True, stderr=subprocess.PIPE
    ) as command:
        assert command.stderr is not None
        while "tasks still run" not in command.stderr.readline():
            assert command.poll() is None
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "not waiting any longer; the request is being carried out" in said
    assert "Traceback" not in said
    live.airflow.state.busy = 0
    live.until(lambda i: i["build"] == before and i["phase"] == "Active")


@pytest.mark.parametrize("target", [ON_INSTANCE, ON_ENVIRONMENT])
def test_suspend_and_resume_are_waited_for(live: Live, target: str) -> None:
    """A resume ends when what was held up is active."""
    done = live.wait_for("suspend", target)
    assert done.returncode == 0, done
    assert live.instance()["suspended"] is True
    before = live.instance()["build"]
    version = f"3.{len(target)}"
    live.commit(version)
    done = live.wait_for("resume", target)
    assert done.returncode == 0, done
    after = live.until(lambda i: i["build"] != before and i["sync"] == "Synced")
    assert after["suspended"] is False


def test_a_resume_to_a_build_that_fails_live_ends_with_1(live: Live) -> None:
    """It was carried out, and what it let go on has ended badly."""
    assert live.wait_for("suspend", ON_ENVIRONMENT).returncode == 0
    revision = live.site.commit("4.0", BAD_LIVE)
    (live.site.root / "state" / "wake").touch()
    live.until(lambda i: i["revision"] == revision)
    done = live.wait_for("resume", ON_ENVIRONMENT)
    assert done.returncode == 1, done
    assert "acme does not start" in done.stderr
    assert "RollingBack" in done.stderr
    assert live.instance()["phase"] == "RolledBack"


def test_a_refresh_is_waited_for(live: Live) -> None:
    """Until it is built anew and where it belongs."""
    live.activate("5.0")
    built = live.count("BuildReady")
    done = live.wait_for("refresh", ENVIRONMENT)
    assert done.returncode == 0, done
    assert live.count("BuildReady") == built + 1
    assert live.instance()["sync"] == "Synced"


def test_a_confirmed_loss_is_waited_for(live: Live) -> None:
    """Until the instance is on the bare base."""
    folder = live.site.repo / "teams" / TEAM
    document = yaml.safe_load((folder / f"{ENVIRONMENT}.yaml").read_text())
    for name in ("two", "three"):
        other = {**document, "metadata": {"name": name}, "spec": {"requirements": []}}
        live.site.write(f"teams/{TEAM}/{name}.yaml", yaml.safe_dump(other))
    live.activate("6.0")
    for path in folder.glob("*.yaml"):
        path.unlink()
    live.site.save("no environment is left")
    (live.site.root / "state" / "wake").touch()
    deadline = time.monotonic() + PATIENCE
    while live.site.status()["problem"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    done = live.wait_for("confirm-prune")
    assert done.returncode == 0, done
    assert live.instance()["build"] is None
