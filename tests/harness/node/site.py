"""Airflow release on the node, with a share, an environments repo, and a daemon on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import tomli_w
import yaml

from reconciler.core.model import InstanceRecord
from reconciler.store.store import Store
from tests.fakes.base import write_package
from tests.fakes.kubeapi import Json, wait_for
from tests.fakes.site import IDENTITY
from tests.fakes.stand import rights
from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.airflow_release import ADMIN, USER, AirflowRelease
from tests.harness.node.network import HOST, NODE, PODS
from tests.harness.node.node import Node
from tests.harness.node.postgresql import postgresql

INSTANCE, TEAM = "red-dev", "red"
SERVICE = "10.255.0.80"
GIVE_UP = 600.0  # seconds; a node on a loaded machine is slow


class NodeSite:
    """Context manager for a site, of which everything is below `root`."""

    def __init__(self, node: Node, root: Path, image: AirflowImage) -> None:
        self.node, self.root, self.image = node, root, image
        self.share, self.repo = root / "share", root / "environments"
        self.dags, self.logs = root / "dags", root / "logs"
        self._stack = ExitStack()
        self._store: Store | None = None

    def __enter__(self) -> Self:
        for folder in (self.share, self.repo, self.dags, self.logs):
            folder.mkdir()
            folder.chmod(0o755)
        os.chown(self.logs, USER, 0)
        with ExitStack() as stack:
            self.image.load(self.node.runtime)
            clients = (f"{HOST}/24", PODS)
            database = stack.enter_context(postgresql(HOST, 15432, clients))
            self.airflow = self.node.namespace("airflow")
            self.builds = self.node.namespace("builds")
            self.node.claim(self.airflow, "groundcrew-share", self.share)
            self.node.claim(self.builds, "groundcrew-share", self.share)
            self.release = AirflowRelease(
                self.airflow, self.image.reference, database, SERVICE, INSTANCE, self.share,
                self.dags, self.logs,
            )  # fmt: skip
            stack.callback(self.node.drop, self.airflow, self.builds)
            self._install()
            self._prepare_repo()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()
        self._stack.close()

    # ------------------------------------------------------------------------------- Airflow

    def _install(self) -> None:
        self.node.apply(self.release.preparation(), self.airflow)
        wait_for(self._migrated, GIVE_UP, "the migration of Airflow's database")
        self.node.apply(self.release.components(), self.airflow)
        for name in ("api-server", "scheduler", "dag-processor"):
            self.node.rolled_out("deployments", self.airflow, f"airflow-{name}", GIVE_UP)

    def _migrated(self) -> bool:
        job = self.node.api.get("jobs", self.airflow, "airflow-run-airflow-migrations")
        return bool((job or {}).get("status", {}).get("succeeded"))

    def rest(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send a request to Airflow's REST API."""
        url = f"http://{SERVICE}:8080"
        with httpx.Client(timeout=60) as client:
            login = client.post(f"{url}/auth/token", json={"username": ADMIN, "password": ADMIN})
            login.raise_for_status()
            token = {"Authorization": f"Bearer {login.json()['access_token']}"}
            answer = client.request(method, f"{url}/api/v2{path}", json=body, headers=token)
            answer.raise_for_status()
            document: Json = answer.json()
            return document

    def run_dag(self, dag: str) -> tuple[str, str]:
        """Run a DAG once Airflow knows it; return its state and the logs of its tasks."""

        def known() -> bool:
            try:
                return not self.rest("GET", f"/dags/{dag}")["is_paused"]
            except httpx.HTTPError:
                return False

        wait_for(known, GIVE_UP, f"the DAG {dag}")
        run = self.rest("POST", f"/dags/{dag}/dagRuns", {"logical_date": None})["dag_run_id"]

        def ended() -> str:
            state = self.rest("GET", f"/dags/{dag}/dagRuns/{run}")["state"]
            return state if state in ("success", "failed") else ""

        state = wait_for(ended, GIVE_UP, f"the run of {dag}")
        logs = sorted(self.logs.glob(f"dag_id={dag}/run_id={run}/**/*.log"))
        return state, "\n".join(log.read_text() for log in logs)

    # ------------------------------------------------------------------- environments repo, daemon

    def _prepare_repo(self) -> None:
        self._git("init", "-q", "-b", "main")
        secret = self.root / "secrets" / TEAM / "airflow"
        secret.mkdir(parents=True)
        (secret / "username").write_text(ADMIN)
        (secret / "password").write_text(ADMIN)
        self._write(f"instances/{INSTANCE}.yaml", "Instance", INSTANCE, {
            "team": TEAM, "kubernetes": {"namespace": self.airflow, "release": "airflow"},
            "api": {"url": f"http://{SERVICE}:8080", "credentials": "airflow"},
            "maintenance": {"probe": {"timeout": "10m"}},
        })  # fmt: skip

    def commit(self, version: str, text: str = '__version__ = "{version}"\n') -> None:
        """Commit a definition that asks for `acme` in this version."""
        folder = self.repo / "teams" / TEAM / "packages" / "acme"
        modules = {"acme/__init__.py": text.format(version=version)}
        write_package(folder, "acme", version, modules)
        self._write(f"teams/{TEAM}/{TEAM}.yaml", "Environment", TEAM, {
            "requirements": ["acme @ ./packages/acme"], "rollout": [{"instances": [INSTANCE]}],
        })  # fmt: skip
        self._git("add", "-A")
        self._git(*IDENTITY, "commit", "-q", "-m", f"acme {version}")

    def _write(self, path: str, kind: str, name: str, spec: Json) -> None:
        document = {
            "apiVersion": "groundcrew/v1", "kind": kind, "metadata": {"name": name}, "spec": spec
        }  # fmt: skip
        (self.repo / path).parent.mkdir(parents=True, exist_ok=True)
        (self.repo / path).write_text(yaml.safe_dump(document))

    def _git(self, *words: str) -> None:
        subprocess.run(
            ["git", *words], cwd=self.repo, check=True, capture_output=True, timeout=60
        )  # fmt: skip

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a daemon with the rights that the chart grants; its log is shown on a failure."""
        _, token = rights(self.node, [self.airflow], self.builds)
        config, log = self.root / "groundcrew.toml", self.root / "groundcrew.log"
        kubeconfig = self.node.plane.kubeconfig(self.root / "kubeconfig", token=token)
        settings: dict[str, Any] = {
            "state_dir": str(self.root / "state"), "share": str(self.share),
            "secrets_dir": str(self.root / "secrets"),
            "git": {"url": str(self.repo), "poll_interval": 1.0}, "http": {"enabled": False},
            "activation": {"watch": 10.0},
            "kubernetes": {
                "kubeconfig": str(kubeconfig), "clusters": {"lab": {}},
                "jobs": {"namespace": self.builds, "index_port": 0, "cpu": "1"},
            },
        }  # fmt: skip
        config.write_text(tomli_w.dumps(settings))
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDCREW_")}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "reconciler.cli", "run"], stdout=output, stderr=output,
                env={**kept, "GROUNDCREW_CONFIG": str(config), "POD_IP": HOST},
            )  # fmt: skip
        try:
            yield process
        except BaseException:
            sys.stderr.write(log.read_text()[-8000:] + self.describe())
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def record(self) -> InstanceRecord | None:
        """Return the instance's record, or None before there is one."""
        if not (self.root / "state" / "groundcrew.db").exists():
            return None
        if self._store is None:
            self._store = Store(f"sqlite:///{self.root / 'state' / 'groundcrew.db'}")
        try:
            return self._store.load().instances.get(INSTANCE)
        except Exception:  # the daemon has not made its tables yet
            return None

    def wait_active(self, version: str) -> InstanceRecord:
        """Wait until the instance is active on a version of `acme`."""

        def active() -> InstanceRecord | None:
            record = self.record()
            if record is None or record.activation is not None or self._store is None:
                return None
            builds = self._store.load().builds.values()
            packages = {b.build_id: dict(b.packages) for b in builds}
            there = packages.get(record.current or "", {}).get("acme")
            return record if there == version else None

        return wait_for(active, GIVE_UP, f"{INSTANCE} to be active on acme {version}")

    def describe(self) -> str:
        """Return the newest events of the records and all pods, for a failure's report."""
        lines = [f"{time.strftime('%T')} node {NODE}"]
        if self._store is not None:
            lines += [str(e) for e in self._store.events(limit=30, newest_first=True)]
        for space in (self.airflow, self.builds):
            for pod in self.node.pods(space):
                lines.append(f"{pod['metadata']['name']} {pod['status'].get('phase')} "
                             f"{pod['status'].get('containerStatuses')}")  # fmt: skip
        return "\n".join(lines) + "\n"
