"""Groundcrew on the node, as its chart renders it: the project's own image runs as the daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import Any, Self

from scripts.manifests import render
from tests.harness.kube_api import Json, wait_for
from tests.harness.node.airflow_release import ADMIN, USER
from tests.harness.node.gitserver import git_server
from tests.harness.node.network import HOST
from tests.harness.node.node import GIVE_UP
from tests.harness.node.own_image import REPOSITORY, load_own_image
from tests.harness.node.processes import Confinement, confinement
from tests.harness.node.site import RESTRICTED, TEAM, NodeSite

DAEMON = "app.kubernetes.io/component=daemon"


class Installation:
    """Context manager for a daemon of the site's instance; its records are those of the site."""

    def __init__(self, site: NodeSite) -> None:
        self.site, self.node = site, site.node
        self._stack = ExitStack()
        self._tag = ""

    def __enter__(self) -> Self:
        self._tag = load_own_image(self.node.runtime)
        with ExitStack() as stack:
            self.home = self.node.namespace("groundcrew", RESTRICTED)
            stack.callback(self.node.drop, self.home)
            url = stack.enter_context(git_server(self.site.root, HOST))
            state = self.site.root / "state"
            state.mkdir(exist_ok=True)
            for folder in (self.site.share, state):
                subprocess.run(["chown", "-R", f"{USER}:0", str(folder)], check=True, timeout=60)
            self.node.claim(self.home, "groundcrew-share", self.site.share)
            self.node.claim(self.home, "state", state)
            self.documents = list(render(self._values(url), self.home))
            self.node.apply([self._secret()], self.home)
            self.node.apply(self.documents)
            self.node.rolled_out("deployments", self.home, "groundcrew", GIVE_UP)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            sys.stderr.write(self.describe())
        self.uninstall()
        self._stack.close()

    def pod(self) -> Json:
        """Return the pod of the daemon once it runs."""

        def running() -> Json | None:
            pods = self.node.pods(self.home, DAEMON)
            alive = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
            return next((p for p in alive if p["status"].get("phase") == "Running"), None)

        return wait_for(running, GIVE_UP, "the daemon's pod")

    def kill_pod(self) -> None:
        """Delete the pod of the daemon with no time to end."""
        options = {"gracePeriodSeconds": 0}
        self.node.api.delete("pods", self.home, self.pod()["metadata"]["name"], options)

    def kill_process(self) -> None:
        """Kill the daemon in its container, which the kubelet then starts again."""
        os.kill(self.node.runtime.process(self.pod(), "daemon"), signal.SIGKILL)

    def confinement(self, pod: Json, container: str) -> Confinement:
        """Return what a container's process may do, read from the process."""
        return confinement(self.node.runtime.process(pod, container))

    def uninstall(self) -> None:
        """Delete what the chart made, as `helm uninstall` does."""
        for document in reversed(self.documents):
            kept = document["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
            if kept != "keep":
                self.node.remove(document)
        wait_for(lambda: not self.node.pods(self.home, DAEMON), GIVE_UP, "the daemon's end")

    def describe(self) -> str:
        """Return the daemon's log, and the site's events and pods, for a failure's report."""
        pods = self.node.pods(self.home, DAEMON)
        logs = [self.node.log(self.home, pod, "?tailLines=120") for pod in pods]
        return "\n".join([*logs, self.site.describe()])

    def _values(self, git: str) -> dict[str, Any]:
        return {
            "image": {"repository": REPOSITORY, "tag": self._tag},
            "config": {
                "log_format": "text",
                "git": {
                    "url": f"{git}/{self.site.repo.name}",
                    "allow_schemes": ["git"],
                    "poll_interval": 1.0,
                },
                "activation": {"watch": self.site.watch, "retry_first": 1.0},
                "kubernetes": {"jobs": {"cpu": "1"}},
            },
            "airflowNamespaces": [self.site.airflow],
            "builds": {"namespace": self.site.builds, "create": False},
            "share": {"path": str(self.site.share), "existing": True},
            "state": {"existingClaim": "state"},
            "secrets": {"teams": {TEAM: {"airflow": "red-airflow"}}},
        }

    def _secret(self) -> Json:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "red-airflow"},
            "stringData": {"username": ADMIN, "password": ADMIN},
        }
