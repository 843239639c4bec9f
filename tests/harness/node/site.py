"""Airflow release on the node, with a share, an environments repo, and a daemon on this machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import tomli_w

from reconciler.core.events import Event
from reconciler.core.model import InstanceRecord
from reconciler.core.phases import ActivationPhase
from reconciler.store.store import Store
from tests.harness.kube_api import ApiError, Json, path_of, plural_of, wait_for
from tests.harness.node.airflow_dag import dag_file
from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.airflow_release import ADMIN, USER, AirflowRelease
from tests.harness.node.airflow_rest import AirflowRest
from tests.harness.node.airflow_settings import CELERY, KUBERNETES
from tests.harness.node.dag_runs import DagRuns
from tests.harness.node.environments import NOTHING, EnvironmentsRepo
from tests.harness.node.network import HOST, NODE, PODS
from tests.harness.node.node import GIVE_UP, Node
from tests.harness.node.postgresql import postgresql
from tests.harness.node.programs import end
from tests.harness.node.redis import redis
from tests.harness.release_driver import rights

INSTANCE, TEAM = "red-dev", "red"
# Addresses of the services of Airflow's servers. Kubernetes gives the first 16 of a small range to
# no service that does not ask for one.
SERVICES, FIRST_ADDRESS = "10.255.0", 11
DATABASE_PORT = 15432
MIGRATION = "airflow-run-airflow-migrations"
BASELINE = {"pod-security.kubernetes.io/enforce": "baseline"}
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class NodeSite:
    """Context manager for a site, of which everything is below `root`.

    Sites that exist at the same time have different numbers.
    """

    def __init__(
        self,
        node: Node,
        root: Path,
        image: AirflowImage,
        executor: str = KUBERNETES,
        number: int = 0,
    ) -> None:
        self.node, self.root, self.image = node, root, image
        self._executor, self._number = executor, number
        self.rest = AirflowRest(f"{SERVICES}.{FIRST_ADDRESS + number}", image.airflow)
        self.share, self.repo = root / "share", root / "environments"
        self.dags, self.logs = root / "dags", root / "logs"
        self._environments = EnvironmentsRepo(self.repo, TEAM, INSTANCE)
        self.runs = DagRuns(self.rest, self.logs)
        self._stack = ExitStack()
        self._store: Store | None = None
        self.user = ""  # the daemon's account
        self._versions = itertools.count(1)
        self.database = f"sqlite:///{root / 'state' / 'groundcrew.db'}"  # of the records
        self.watch = 10.0  # seconds that the daemon watches an instance

    def __enter__(self) -> Self:
        for folder in (self.share, self.dags, self.logs):
            folder.mkdir()
            folder.chmod(0o755)
        os.chown(self.logs, USER, 0)
        (self.dags / "uses_acme.py").write_text(dag_file(self.image.airflow))
        with ExitStack() as stack:
            self.image.load(self.node.runtime)
            clients = (f"{HOST}/24", PODS)
            database = stack.enter_context(postgresql(HOST, DATABASE_PORT + self._number, clients))
            celery = self._executor == CELERY
            broker = stack.enter_context(redis(HOST)) if celery else ""
            self.airflow = self.node.namespace("airflow", BASELINE)
            self.builds = self.node.namespace("builds", RESTRICTED)
            claims = {
                "groundcrew-share": self.share,
                "airflow-dags": self.dags,
                "airflow-logs": self.logs,
            }
            for name, folder in claims.items():
                self.node.claim(self.airflow, name, folder)
            self.node.claim(self.builds, "groundcrew-share", self.share)
            self.release = AirflowRelease(
                self.airflow,
                self.image.reference,
                database,
                self.rest.address,
                INSTANCE,
                self.share,
                executor=self._executor,
                airflow=self.image.airflow,
                broker=broker,
            )
            stack.callback(self.node.drop, self.airflow, self.builds)
            try:
                self._install()
            except BaseException:
                sys.stderr.write(self.describe())
                raise
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
        for document in self.release.components():
            if document["kind"] != "Service":
                name, kind = document["metadata"]["name"], plural_of(document["kind"])
                self.node.rolled_out(kind, self.airflow, name, GIVE_UP)

    def upgrade(self, image: AirflowImage) -> None:
        """Give the release another image, as an upgrade of the chart does."""
        image.load(self.node.runtime)
        self.release = replace(self.release, image=image.reference, airflow=image.airflow)
        jobs = path_of("jobs", self.airflow, MIGRATION)
        self.node.api.raw("DELETE", jobs, {"propagationPolicy": "Background"})
        wait_for(
            lambda: self.node.api.get("jobs", self.airflow, MIGRATION) is None,
            GIVE_UP,
            "the end of the last migration's Job",
        )
        self._install()

    def allow_host_paths(self) -> None:
        """Allow the release's pods what Pod Security `baseline` refuses."""
        labels = {"metadata": {"labels": PRIVILEGED}}
        self.node.api.patch("namespaces", "", self.airflow, labels)

    @contextmanager
    def dags_from(self, url: str) -> Iterator[None]:
        """Let the DAG processor fetch its DAGs from git for a while."""
        before = self.release
        try:
            self._reshape(replace(before, git=url))
            yield
        finally:
            self._reshape(before)

    def _reshape(self, release: AirflowRelease) -> None:
        """Apply the release in another shape, and wait until its processor has that."""
        self.release = release
        *settings, _ = release.preparation()
        self.node.apply([*settings, *release.components()], self.airflow)
        self.node.rolled_out("deployments", self.airflow, "airflow-dag-processor", GIVE_UP)

    def _migrated(self) -> bool:
        job = self.node.api.get("jobs", self.airflow, MIGRATION)
        return bool((job or {}).get("status", {}).get("succeeded"))

    # ------------------------------------------------------------------- environments repo, daemon

    def _prepare_repo(self) -> None:
        secret = self.root / "secrets" / TEAM / "airflow"
        secret.mkdir(parents=True)
        (secret / "username").write_text(ADMIN)
        (secret / "password").write_text(ADMIN)
        self._environments.create(
            {
                "team": TEAM,
                "kubernetes": {"namespace": self.airflow, "release": "airflow"},
                "api": {"url": self.rest.url, "credentials": "airflow"},
                "maintenance": {"probe": {"timeout": "10m"}},
            }
        )

    def next_version(self) -> str:
        """Return a version of `acme` that nothing has asked for yet."""
        return f"{next(self._versions)}.0"

    def reach_a_version(self) -> str:
        """Return the version that the instance is active on; commit one if none was before."""
        if not self._environments.has_environment:
            self.commit(self.next_version())
        return wait_for(self.version, GIVE_UP, f"{INSTANCE} to be active on a version of acme")

    def commit(self, version: str, text: str = "", more: Mapping[str, str] = NOTHING) -> str:
        """Ask for a version of `acme`; return the revision (see `EnvironmentsRepo.commit`)."""
        return self._environments.commit(version, text, more)

    @contextmanager
    def daemon(self, **jobs: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a daemon with the rights that the chart grants; show its log if the block fails.

        `jobs` are settings of its Jobs.
        """
        log, config = self.root / "groundcrew.log", self._configure(jobs)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "reconciler.cli", "run"],
                stdout=output,
                stderr=output,
                env=_environment(config, POD_IP=HOST),
            )
        try:
            yield process
        except BaseException:
            sys.stderr.write(log.read_text()[-8000:] + self.describe())
            raise
        finally:
            end(process)

    def _configure(self, jobs: Mapping[str, str]) -> Path:
        if not self.user:
            self.user, _ = rights(self.node, [self.airflow], self.builds)
        *_, home, account = self.user.split(":")
        token = self.node.plane.token_for(home, account)  # which is valid for an hour
        path = self.root / "groundcrew.toml"
        kubeconfig = self.node.plane.kubeconfig(self.root / "kubeconfig", token=token)
        settings: dict[str, Any] = {
            "state_dir": str(self.root / "state"),
            "share": str(self.share),
            "secrets_dir": str(self.root / "secrets"),
            "git": {"url": str(self.repo), "poll_interval": 1.0},
            "http": {"enabled": False},
            "activation": {"watch": self.watch, "retry_first": 1.0},
            "kubernetes": {
                "kubeconfig": str(kubeconfig),
                "clusters": {"lab": {}},
                "jobs": {"namespace": self.builds, "index_port": 0, "cpu": "1", **jobs},
            },
        }
        path.write_text(tomli_w.dumps(settings))
        return path

    def groundcrew(self, *command: str) -> None:
        """Run a command of `groundcrew` with the daemon's settings."""
        done = subprocess.run(
            [sys.executable, "-m", "reconciler.cli", *command],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=_environment(self.root / "groundcrew.toml"),
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def record(self) -> InstanceRecord | None:
        """Return the instance's record, or None before there is one."""
        file = self.root / "state" / "groundcrew.db"
        if self.database.startswith("sqlite") and not file.exists():
            return None  # and do not make it: the daemon may be another user
        if self._store is None:
            self._store = Store(self.database)
        try:
            return self._store.load().instances.get(INSTANCE)
        except Exception:  # the daemon has not made its tables yet
            return None

    def version(self) -> str:
        """Return the version of `acme` that the instance is active on, or ""."""
        record = self.record()
        if record is None or record.activation is not None or self._store is None:
            return ""
        builds = self._store.load().builds.values()
        packages = {b.build_id: dict(b.packages) for b in builds}
        return str(packages.get(record.current.build or "", {}).get("acme", ""))

    def wait_leading(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a daemon of a known instance leads, and so has found its share."""

        def leads() -> bool:
            assert process.poll() is None, "the daemon has ended"
            return self.leader().endswith(f":{process.pid}")

        wait_for(leads, GIVE_UP, "the daemon to lead")

    def leader(self) -> str:
        """Return the host and process of the daemon that leads, or "" if none has an instance."""
        if self.record() is None or self._store is None:
            return ""
        return self._store.leader() or ""

    def waits_for(self) -> str:
        """Return what the instance's activation waits for, in words, or ""."""
        record = self.record()
        held = record.activation.held if record is not None and record.activation else None
        return held.message if held is not None else ""

    def phase(self) -> ActivationPhase | None:
        """Return the phase of the instance's activation, if there is one."""
        record = self.record()
        return record.activation.phase if record is not None and record.activation else None

    def restarts(self, component: str) -> int:
        """Return how often containers of a component's pods have ended and started again."""
        pods = self.node.pods(self.airflow, f"component={component}")
        statuses = [s for pod in pods for s in pod["status"].get("containerStatuses", [])]
        return sum(status["restartCount"] for status in statuses)

    def wait_active(self, version: str) -> None:
        """Wait until the instance is active on a version of `acme`."""
        wait_for(lambda: self.version() == version, GIVE_UP, f"{INSTANCE} to be on acme {version}")

    def wait_event(self, kind: str, revision: str = "", since: float = 0.0) -> Event:
        """Wait for an event, about a revision and since a time if these are given."""

        def newest() -> Event | None:
            if self.record() is None or self._store is None:
                return None
            events = self._store.events(kinds=[kind], limit=200, newest_first=True)
            matching = (e for e in events if revision in ("", e.revision) and e.at >= since)
            return next(matching, None)

        return wait_for(newest, GIVE_UP, f"{kind} of {revision or 'any revision'}")

    def running_pod(self, namespace: str, labels: str = "") -> Json:
        """Wait until a pod of a Job runs in a namespace, and return it."""

        def running() -> Json | None:
            query = f"job-name,{labels}" if labels else "job-name"
            pods = self.node.pods(namespace, query)
            return next((p for p in pods if p["status"].get("phase") == "Running"), None)

        return wait_for(running, GIVE_UP, f"a Job's pod in {namespace}")

    def describe(self) -> str:
        """Return the newest events of the records and all pods, for a failure's report."""
        lines = [f"{time.strftime('%T')} node {NODE}"]
        if self._store is not None:
            lines += [str(e) for e in self._store.events(limit=30, newest_first=True)]
        for space in (self.airflow, self.builds):
            for pod in self.node.pods(space):
                statuses = pod["status"].get("containerStatuses", [])
                states = {s["name"]: (s["restartCount"], s["state"]) for s in statuses}
                lines.append(f"{pod['metadata']['name']} {pod['status'].get('phase')} {states}")
                for container in states:
                    with contextlib.suppress(ApiError):  # it has not started
                        query = f"?tailLines=25&container={container}"
                        lines.append(self.node.log(space, pod, query))
        return "\n".join(lines) + "\n"


def _environment(config: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process of Groundcrew with these settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDCREW_")}
    return {**kept, "GROUNDCREW_CONFIG": str(config), **variables}
