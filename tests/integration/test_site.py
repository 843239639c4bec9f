"""A whole site: after records are lost, and after an instance's definition changes."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from gitsource.source import Source
from reconciler.core.definitions import Definitions
from reconciler.core.phases import Step
from reconciler.core.reasons import Reason
from reconciler.core.world import World
from reconciler.daemon.daemon import Daemon
from reconciler.settings import Settings
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import INSTANCE, Site


def test_lost_records_are_adopted_from_the_share(tmp_path: Path) -> None:
    """An empty database beside a full share resolves, builds and restarts nothing."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        (before,) = site.status()["instances"]
        log = next((site.root / "state" / "logs").iterdir())
        log.unlink()
        Path(site.database.removeprefix("sqlite:///")).unlink()
        airflow.state.loaded.clear()
        code, output = site.once()
        assert code == 0, output
        assert "1 can be adopted" in output
        (after,) = site.status()["instances"]
        assert (after["build"], after["sync"]) == (before["build"], "Synced")
        assert airflow.state.loaded == [], "nothing was restarted"
        assert "resolving" not in log.read_text()


def test_rows_that_cannot_be_read_stop_nothing_else(tmp_path: Path) -> None:
    """A build's row is made again without a restart; an instance's is reported and left alone."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        airflow.state.loaded.clear()
        path = site.database.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE builds SET document = '{}'")
        code, output = site.once()
        assert code == 0, output
        assert "cannot be read and are forgotten" in output
        assert airflow.state.loaded == [], "nothing was restarted"
        (instance,) = site.status()["instances"]
        assert instance["sync"] == "Synced"
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE instances SET document = '{}'")
        code, output = site.once()
        assert code == 1, output
        store = site.store()
        (finding,) = store.load().repo.findings
        store.close()
        assert (finding.object, finding.reason) == (
            f"Instance/{INSTANCE}",
            Reason.RECORD_UNREADABLE,
        )
        code, output = site.run("gc")
        assert code == 1, output
        assert f"instance/{INSTANCE}" in output
        assert airflow.state.loaded == []


def test_a_library_restarts_only_what_loads_it(tmp_path: Path) -> None:
    """The API server keeps its process and its build, which is not collected; status says so."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        (old,) = {one["build"] for one in airflow.state.loaded}
        airflow.state.loaded.clear()
        site.commit("1.1")
        code, output = site.once()
        assert code == 0, output
        said = {one["component"]: one["acme"] for one in airflow.state.loaded}
        assert said == dict.fromkeys(("scheduler", "dag-processor", "triggerer"), "1.1")
        assert "keeps api-server running" in output
        (instance,) = site.status()["instances"]
        assert instance["earlier_builds"] == {"api-server": [old]}
        assert site.run("gc")[0] == 0
        assert site.share.build(old) is not None


def test_a_changed_load_into_restarts_what_it_concerns(tmp_path: Path) -> None:
    """The pointer says who loads the build; a component that leaves is restarted without it."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        definition = site.instance()
        definition["spec"]["loadInto"] = ["scheduler", "dag-processor", "triggerer"]
        path = site.repo / "instances" / f"{INSTANCE}.yaml"
        path.write_text(yaml.safe_dump(definition))
        site.save("keep team code out of the API server")
        airflow.state.loaded.clear()
        code, output = site.once()
        assert code == 0, output
        said = {one["component"]: one["acme"] for one in airflow.state.loaded}
        assert said == {
            "scheduler": "1.0",
            "dag-processor": "1.0",
            "triggerer": "1.0",
            "api-server": "",
        }
        pointer = site.share.pointer(INSTANCE)
        assert pointer is not None
        assert "api-server" not in pointer.load_into
        store = site.store()
        last = store.load().instances[INSTANCE].last
        store.close()
        assert last is not None
        assert last.step is Step.DONE


def test_once_does_not_end_before_it_has_decided_on_what_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of a poll that ends during a cycle is decided on, however slow the machine is."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        site.commit("2.0")
        monkeypatch.setenv("GROUNDCREW_CONFIG", str(site.config))
        looked, read, ended = threading.Event(), threading.Event(), []
        poll, observe = Source.poll, Daemon._observe

        def late_poll(source: Source) -> Definitions | None:
            assert looked.wait(60)
            return poll(source)

        def observe_first(daemon: Daemon) -> World:
            world = observe(daemon)
            looked.set()
            until = time.monotonic() + 60
            while not read.is_set() and time.monotonic() < until:
                if ("poll", "") not in daemon._workers.busy():
                    read.set()
                time.sleep(0.01)
            return world

        monkeypatch.setattr(Source, "poll", late_poll)
        monkeypatch.setattr(Daemon, "_observe", observe_first)
        daemon = Daemon(Settings())
        running = threading.Thread(target=lambda: ended.append(daemon.run(once=True)))
        running.start()
        running.join(300)
        assert ended == [0]
        assert {one["acme"] for one in airflow.state.loaded[-2:]} == {"2.0"}
