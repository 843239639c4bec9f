"""Reader of the page on Kubernetes: what the page takes for granted, and a shell.

There is an Airflow release from a chart, a git server with HTTPS and a token, names for both, and
the project's image under the name of the registry. The shell's folder is one with this project's
`deploy`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import yaml

from scripts.manifests import CHART, ROOT
from tests.harness.kube_api import Json, plural_of, wait_for
from tests.harness.node.airflow_chart import VERSION, chart_repository
from tests.harness.node.airflow_dag import dag_file
from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.airflow_release import MIGRATION, USER, AirflowRelease
from tests.harness.node.airflow_rest import AirflowRest
from tests.harness.node.dag_runs import DagRuns
from tests.harness.node.environments import EnvironmentsRepo
from tests.harness.node.git_https import git_https
from tests.harness.node.names import names
from tests.harness.node.network import HOST, PODS
from tests.harness.node.node import GIVE_UP, Node
from tests.harness.node.own_image import REPOSITORY, load_own_image
from tests.harness.node.postgresql import postgresql

AIRFLOW, RELEASE = "airflow-analytics", "airflow"
INSTANCE, TEAM = "analytics-prod", "analytics"
REGISTRY = "registry.example.com/groundcrew"
GIT_HOST, GIT_PATH, TOKEN = "git.example.com", "platform/environments.git", "token-of-a-reader"
SHARE = Path("/srv/groundcrew")  # in the pods
ADDRESS, DATABASE_PORT = "10.255.0.14", 15442
COMMAND_TIMEOUT = 600.0  # seconds


class Reader:
    """Context manager for the page's surroundings; `root` has everything."""

    def __init__(self, node: Node, root: Path) -> None:
        self.node, self.root, self.here = node, root, root / "here"
        self.share, self.records = root / "share", root / "records"
        self._dags, self._logs = root / "dags", root / "logs"
        self._image = AirflowImage("3.2.2", "3.12")
        self.rest = AirflowRest(ADDRESS, self._image.airflow)
        self.runs = DagRuns(self.rest, self._logs)
        self.environments = EnvironmentsRepo(root / "git" / GIT_PATH, TEAM, INSTANCE)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for folder in (self.here, self.share, self.records, self._dags, self._logs):
            folder.mkdir()
            os.chown(folder, USER, 0)
            folder.chmod(0o775)
        (self.here / "deploy").symlink_to(ROOT / "deploy")
        (self.here / "git-token.txt").write_text(TOKEN)
        (self._dags / "uses_acme.py").write_text(dag_file(self._image.airflow))
        self._load_images()
        with ExitStack() as stack:
            stack.enter_context(names(self.node, {GIT_HOST: HOST}))
            git = git_https(self.root / "git", HOST, GIT_HOST, TOKEN)
            self.authority = stack.enter_context(git)
            self._install_airflow(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for command in (
                "get pods -A",
                f"-n {AIRFLOW} logs -l component=worker --tail 60",
                f"-n {AIRFLOW} logs deploy/airflow-scheduler --tail 60",
                "-n groundcrew logs deploy/groundcrew --tail 60",
            ):
                done = self._shell(f"kubectl {command} || true")
                sys.stderr.write(done.stdout + done.stderr)
        self._stack.close()

    def run(self, text: str) -> str:
        """Run commands as the reader types them; return what they print."""
        done = self._shell(text)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, name: str, *documents: Json) -> None:
        """Write a YAML file into the reader's folder."""
        (self.here / name).write_text(yaml.safe_dump_all(documents))

    def airflow_rolled_out(self) -> None:
        """Wait until all components of Airflow have the pods that they should have."""
        for document in self._release.components():
            if document["kind"] != "Service":
                name, kind = document["metadata"]["name"], plural_of(document["kind"])
                self.node.rolled_out(kind, AIRFLOW, name, GIVE_UP)

    def airflow_pods(self) -> set[str]:
        """Return the uids of Airflow's pods that run all the time."""
        pods = self.node.pods(AIRFLOW, "tier=airflow,component!=worker")
        return {p["metadata"]["uid"] for p in pods if p["status"].get("phase") == "Running"}

    def _shell(self, text: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.node.programs.folder}:{os.environ['PATH']}"
        kubeconfig = self.node.root / "plane" / "admin.kubeconfig"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.here,
            env={"PATH": path, "KUBECONFIG": str(kubeconfig), "HOME": str(self.here)},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )

    def _load_images(self) -> None:
        runtime = self.node.runtime
        self._image.load(runtime)
        own = f"{REPOSITORY}:{load_own_image(runtime)}"
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        runtime.ctr("images", "tag", "--force", own, f"{REGISTRY}:{chart['appVersion']}")

    def _install_airflow(self, stack: ExitStack) -> None:
        self.node.api.create("namespaces", "", {"metadata": {"name": AIRFLOW}})
        stack.callback(self.node.drop, AIRFLOW, "groundcrew", "groundcrew-builds")
        self.node.claim(AIRFLOW, "airflow-dags", self._dags)
        self.node.claim(AIRFLOW, "airflow-logs", self._logs)
        clients = (f"{HOST}/24", PODS)
        self._release = AirflowRelease(
            AIRFLOW,
            self._image.reference,
            stack.enter_context(postgresql(HOST, DATABASE_PORT, clients)),
            ADDRESS,
            INSTANCE,
            SHARE,
            connected=False,
        )
        self.node.apply(self._release.preparation(), AIRFLOW)
        wait_for(self._is_migrated, GIVE_UP, "the migration of Airflow's database")
        url = stack.enter_context(chart_repository(self.root / "charts", self._release, self.run))
        self.run(
            f"helm repo add apache-airflow {url}\n"
            f"helm install {RELEASE} apache-airflow/airflow -n {AIRFLOW} --version {VERSION} "
            "--take-ownership"
        )
        self.airflow_rolled_out()

    def _is_migrated(self) -> bool:
        job = self.node.api.get("jobs", AIRFLOW, f"{RELEASE}-{MIGRATION}") or {}
        return bool(job.get("status", {}).get("succeeded"))
