"""Loss of the lease: without it nothing outside changes, in the cluster, Airflow or the share."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from reconciler.cluster.cluster import Cluster
from reconciler.core.definitions import Api, Component, Instance, LocalTarget, Place
from reconciler.core.errors import Retryable
from reconciler.core.model import Activation, Deployment
from reconciler.core.phases import Step, Trigger
from reconciler.core.reasons import Reason
from reconciler.daemon.wiring import Wiring
from reconciler.settings import Settings
from reconciler.share.gc import collect_garbage
from reconciler.share.share import BaseName
from tests.fakes.airflow_rest import PASSWORD, USER, FakeAirflow

SPACE = "airflow"
BUILD = "b" * 16


class Server:
    """A stand-in for an API server that records requests, and answers `answers` first, then 200."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.answers: list[int] = []  # HTTP statuses, or 0 for a connection that is cut
        handler = type("Handler", (_Handler,), {"server_": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""

    def _any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server_.came.append(self.command)
        status = self.server_.answers.pop(0) if self.server_.answers else 200
        if not status:
            self.close_connection = True
            return
        body = json.dumps({"metadata": {"name": "one"}, "items": []}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815


class Rig:
    """The daemon's own components, wired as it does, with a target for each effect."""

    def __init__(self, root: Path, airflow: FakeAirflow, server: Server) -> None:
        self.airflow, self.server, self.root = airflow, server, root
        secret = root / "secrets" / "red" / "airflow"
        secret.mkdir(parents=True)
        (secret / "username").write_text(USER)
        (secret / "password").write_text(PASSWORD)
        self.restarted = root / "restarted"
        (root / "kubeconfig").write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "one", "cluster": {"server": server.url}}],
                    "users": [{"name": "one", "user": {"token": "x"}}],
                    "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
                }
            )
        )
        self.wiring = Wiring(
            Settings.model_validate(
                {
                    "state_dir": root / "state",
                    "share": root / "share",
                    "secrets_dir": root / "secrets",
                    "git": {"url": str(root)},
                    "http": {"enabled": False},
                    "local": {"allow": [sys.executable]},
                    "kubernetes": {"kubeconfig": root / "kubeconfig", "clusters": {"one": {}}},
                }
            )
        )
        (root / "share").mkdir()
        self.wiring.prepare()
        self.wiring.share.put_build(BUILD, {"pylock.toml": b"x", "build.json": b"{}"})
        old = time.time() - 3600
        os.utime(self.wiring.share.build_path(BUILD), (old, old))
        command = (sys.executable, "-c", f"open({str(self.restarted)!r}, 'w')")
        self.instance = Instance(
            "red-dev",
            "red",
            Place("x.yaml"),
            Api(airflow.url, "airflow"),
            LocalTarget(sys.executable, str(root), (Component("scheduler", command),)),
        )

    @property
    def cluster(self) -> Cluster:
        return self.wiring.clusters().clusters.of("one")

    def state(self) -> tuple[object, ...]:
        """Return all that an effect could have changed."""
        return (
            [method for method in self.server.came if method != "GET"],
            list(self.airflow.state.patched),
            self.restarted.exists(),
            self.wiring.share.pointer("red-dev"),
            self.wiring.share.build_path(BUILD).exists(),
        )

    def perform(self, step: Step, *, slots: int = 128) -> None:
        now, parts = time.time(), ("scheduler",)
        activation = Activation(
            "a1",
            Deployment(load_into=parts),
            Deployment(BUILD, load_into=parts),
            Trigger.COMMIT,
            "r",
            step,
            now,
            now,
            restarted_at=now,
        )
        pools = (("default_pool", 128),)
        self.airflow.state.pools["default_pool"] = slots
        driver = self.wiring.driver(self.instance)
        driver.perform(step, self.instance, replace(activation, pools=pools), now)

    def point(self) -> None:
        self.wiring.share.point("red-dev", BaseName("k", "cp311", "3.1.0"), BUILD, ("scheduler",))

    def collect(self) -> None:
        collect_garbage(
            self.wiring.share, roots=set(), held=(), now=time.time(), grace=60.0, dry_run=False
        )


EFFECTS: dict[str, Callable[[Rig], object]] = {
    "create": lambda rig: rig.cluster.create("jobs", SPACE, {"metadata": {"name": "one"}}),
    "patch": lambda rig: rig.cluster.patch("deployments", SPACE, "one", {}),
    "delete": lambda rig: rig.cluster.delete("pods", SPACE, "one"),
    "pause": lambda rig: rig.perform(Step.PAUSE),
    "release": lambda rig: rig.perform(Step.RELEASE, slots=0),
    "restart": lambda rig: rig.perform(Step.RESTART),
    "point": lambda rig: rig.point(),
    "collect": lambda rig: rig.collect(),
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    server = Server()
    with FakeAirflow() as airflow:
        rig = Rig(tmp_path, airflow, server)
        yield rig
        rig.wiring.close()
        rig.wiring.store.close()
    server.close()


def lost() -> None:
    raise Retryable(Reason.LEASE_LOST, "another daemon may lead now")


@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
def test_without_the_lease_no_effect_goes_out(rig: Rig, effect: Callable[[Rig], object]) -> None:
    """Nothing changes for any kind of effect; with the lease the same effect changes something."""
    before = rig.state()
    rig.wiring.check = lost
    with pytest.raises(Retryable) as caught:
        effect(rig)
    assert caught.value.reason == Reason.LEASE_LOST
    assert rig.state() == before
    rig.wiring.check = lambda: None
    effect(rig)
    assert rig.state() != before


@pytest.mark.parametrize("answer", [429, 503, 401, 0], ids=["busy", "down", "expired", "cut"])
@pytest.mark.parametrize("name", ["create", "patch", "delete"])
def test_a_change_is_not_sent_again_once_the_lease_is_lost(
    rig: Rig, name: str, answer: int
) -> None:
    """The server was busy or the connection was cut, and the lease expired meanwhile."""
    rig.server.answers = [answer, 404] if name == "create" and not answer else [answer]
    sent = {"create": "POST", "patch": "PATCH", "delete": "DELETE"}[name]

    def check() -> None:
        if sent in rig.server.came:
            lost()

    rig.wiring.check = check
    with pytest.raises(Retryable):
        EFFECTS[name](rig)
    assert rig.server.came.count(sent) == 1
