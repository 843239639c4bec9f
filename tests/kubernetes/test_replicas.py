"""Two replicas on PostgreSQL: one leads, the other takes over, and a late leader has no effect."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from sqlalchemy.exc import DBAPIError

from reconciler.core.errors import Retryable
from reconciler.core.phases import Step
from tests.fakes.releases import CELERY, Release
from tests.harness.cluster_daemon import KubeSite
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab

KEPT = {"api-server", "scheduler"}  # components that load nothing of the version's change


@pytest.fixture
def site(lab: Lab, tmp_path: Path, postgresql_url: str) -> Iterator[KubeSite]:
    with KubeSite(lab, tmp_path) as site:
        site.database = postgresql_url
        site.more = {"database": postgresql_url, "lease_ttl": 3.0}
        site.instance("red-dev", "red", Release(version="3.1.0", executor=CELERY))
        site.environment("red", "red-dev", version="1.0")
        site.commit()
        yield site


def leading(site: KubeSite, process: subprocess.Popen[bytes]) -> bool:
    """Return True if a process holds the lease."""
    try:
        return (site.store().leader() or "").endswith(f":{process.pid}")
    except (Retryable, DBAPIError):  # there are no tables yet
        return False


def test_another_takes_over_from_a_leader_that_was_killed(site: KubeSite) -> None:
    """It is killed in the middle of an activation, which is then finished, exactly once."""
    with site.daemon("one") as first:
        site.active("red-dev", "1.0", seconds=120)
        with site.daemon("two") as second:
            assert leading(site, first)
            site.environment("red", "red-dev", version="2.0")
            site.commit()
            site.until("red-dev", _restarting, "restarting")
            first.kill()
            first.wait()
            wait_for(lambda: leading(site, second), 30, "the other to lead")
            site.active("red-dev", "2.0", seconds=60)
            loaded = site.loaded("red-dev")
            assert loaded == {name: "1.0" if name in KEPT else "2.0" for name in loaded}
            assert loaded.keys() > KEPT
            assert site.places["red-dev"].airflow.state.pools["default_pool"] == 128


def test_a_leader_that_was_frozen_changes_nothing(site: KubeSite) -> None:
    """It wakes after its lease has expired, and ends; the other did all of the work, once."""
    with site.daemon("one") as first:
        site.active("red-dev", "1.0", seconds=120)
        with site.daemon("two") as second:
            before = _generations(site)
            site.environment("red", "red-dev", version="2.0")
            site.commit()
            site.until("red-dev", _restarting, "restarting")
            os.kill(first.pid, signal.SIGSTOP)
            try:
                wait_for(lambda: leading(site, second), 30, "the other to lead")
                site.active("red-dev", "2.0", seconds=60)
                after, records = _generations(site), site.record("red-dev")
                pools = list(site.places["red-dev"].airflow.state.patched)
                pointer = site.share.pointer("red-dev")
            finally:
                os.kill(first.pid, signal.SIGCONT)
            assert first.wait(60) == 3
            assert second.poll() is None
            assert leading(site, second)
            restarted = {name for name in before if not name.endswith((*KEPT,))}
            assert after == {name: was + (name in restarted) for name, was in before.items()}
            assert len(restarted) == len(before) - len(KEPT)
            assert _generations(site) == after
            now = site.record("red-dev")
            assert now is not None
            assert records is not None
            settled = replace(now, changes=records.changes, version=records.version)
            assert settled == records, "but for conditions, which the leader writes a little later"
            assert site.share.pointer("red-dev") == pointer
            assert site.places["red-dev"].airflow.state.patched == pools


@pytest.mark.parametrize("point", ["airflow.pause.pool", "airflow.restart.components"])
def test_a_leader_that_was_frozen_right_before_an_effect_does_not_do_it(
    site: KubeSite, point: str
) -> None:
    """The other is at the next version meanwhile; the late change would undo its state."""
    with site.daemon("one"):
        site.active("red-dev", "1.0", seconds=120)
    with site.daemon("one", freeze=point) as first:
        wait_for(lambda: leading(site, first), 30, "the first to lead")
        with site.daemon("two") as second:
            site.environment("red", "red-dev", version="2.0")
            site.commit()
            process = psutil.Process(first.pid)
            try:
                wait_for(lambda: process.status() == psutil.STATUS_STOPPED, 60, "the first to stop")
                wait_for(lambda: leading(site, second), 30, "the other to lead")
                site.active("red-dev", "2.0", seconds=60)
                site.environment("red", "red-dev", version="3.0")
                site.commit()
                site.active("red-dev", "3.0", seconds=60)
                before = _generations(site)
                pools = list(site.places["red-dev"].airflow.state.patched)
            finally:
                os.kill(first.pid, signal.SIGCONT)
            assert first.wait(60) == 3
            assert _generations(site) == before
            assert site.places["red-dev"].airflow.state.patched == pools


def test_a_standby_serves_and_wakes_the_leader(site: KubeSite) -> None:
    """Pages and metrics say that it does not lead; a webhook to it reaches the leader."""
    hooks = site.root / "secrets" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "github").write_text("hook-secret")
    with _git_daemon(site) as url:
        git = {"url": url, "allow_schemes": ["git"], "poll_interval": 600.0}
        port = _free_port()
        with site.daemon("one", git=git) as first:
            site.active("red-dev", "1.0", seconds=120)
            with site.daemon("two", git=git, http={"enabled": True, "port": port}):
                wait_for(lambda: _get(port, "/readyz").startswith("ok"), 30, "a ready standby")
                assert _get(port, "/healthz") == "ok\n"
                assert "groundcrew_leader 0.0" in _get(port, "/metrics")
                assert leading(site, first)
                site.environment("red", "red-dev", version="2.0")
                site.commit()
                time.sleep(2.0)
                record = site.record("red-dev")
                assert record is not None
                assert record.activation is None  # there is no poll for ten minutes
                assert _hook(port, b"{}", "hook-secret") == 202
                site.active("red-dev", "2.0", seconds=60)


def test_a_leader_that_is_stopped_gives_the_lease_back(site: KubeSite) -> None:
    """The other leads at once, long before the lease would expire."""
    site.more["lease_ttl"] = 300.0
    with site.daemon("one") as first:
        wait_for(lambda: leading(site, first), 30, "the first to lead")
        with site.daemon("two") as second:
            time.sleep(1.0)
            first.terminate()
            assert first.wait(45) == 0
            wait_for(lambda: leading(site, second), 20, "the other to lead")


def _restarting(record: object) -> bool:
    activation = getattr(record, "activation", None)
    return activation is not None and activation.step is Step.RESTART


def _generations(site: KubeSite) -> dict[str, int]:
    instance = site.places["red-dev"]
    return {
        one["metadata"]["name"]: one["metadata"]["generation"]
        for kind in ("deployments", "statefulsets")
        for one in site.lab.api.list(kind, instance.namespace)
        if one["metadata"]["labels"]["component"] in instance.release.components
    }


class _git_daemon:  # noqa: N801 - used as a function
    """A server of the repository with git's own protocol, so that nobody watches its files."""

    def __init__(self, site: KubeSite) -> None:
        self._site, self._port = site, _free_port()

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            [
                "git",
                "daemon",
                "--export-all",
                "--reuseaddr",
                "--listen=127.0.0.1",
                f"--port={self._port}",
                f"--base-path={self._site.repo.parent}",
            ],
            stderr=subprocess.DEVNULL,
        )
        return f"git://127.0.0.1:{self._port}/{self._site.repo.name}"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def _get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.HTTPError):
        return ""


def _hook(port: int, body: bytes, secret: str) -> int:
    mark = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/hooks/github",
        body,
        {"X-Hub-Signature-256": f"sha256={mark}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return int(answer.status)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
