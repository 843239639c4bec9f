"""Configuration of the demo's Airflow: environment variables and supervisord."""

from __future__ import annotations

import base64
import secrets as randomness
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """Directories of an Airflow, and the port of its API."""

    root: Path
    home: Path
    dags: Path
    logs: Path
    port: int


def environment(airflow: str, place: Paths, database: str, user: str) -> dict[str, str]:
    """Return the variables of all components of an Airflow "3" or "2.11", with new random keys."""
    key = base64.urlsafe_b64encode(randomness.token_bytes(32)).decode()
    common = {
        "HOME": str(place.root),
        "LANG": "C.UTF-8",
        "AIRFLOW_HOME": str(place.home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__FERNET_KEY": key,
        "AIRFLOW__CORE__DAGS_FOLDER": str(place.dags),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(place.logs),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": "10",
        # Airflow's own limits suit a machine that has nothing else to do: on a busy one, a task
        # fails because the API server took more than 5 s to answer.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
        "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    }
    if airflow == "3":
        return common | {
            "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple."
            "simple_auth_manager.SimpleAuthManager",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{user}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(place.root / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{place.port}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(place.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": randomness.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": randomness.token_hex(32),
            "AIRFLOW__TRIGGERER__PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }
    return common | {
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(place.port),
        # Not one worker: while gunicorn loads the application, a program that it runs (`file`) is
        # mistaken for that worker. If loading then takes 10 s more, as on a busy machine, Airflow
        # asks for another worker by SIGTTIN, which stops a gunicorn that is not ready.
        "AIRFLOW__WEBSERVER__WORKERS": "2",
        "AIRFLOW__WEBSERVER__WEB_SERVER_MASTER_TIMEOUT": "600",
        "AIRFLOW__CORE__DAG_FILE_PROCESSOR_TIMEOUT": "600",
        "AIRFLOW__WEBSERVER__SECRET_KEY": randomness.token_hex(32),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__SCHEDULER__STANDALONE_DAG_PROCESSOR": "True",
        "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "3",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3",
        "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
    }


def supervisord(
    root: Path, control: Path, programs: Mapping[str, str], variables: Mapping[str, str]
) -> str:
    """Return supervisord's configuration: `programs` are commands by name, `control` its socket."""
    given = ",".join(f'{key}="{value.replace("%", "%%")}"' for key, value in variables.items())
    parts = [
        f"[unix_http_server]\nfile={control}\nchmod=0600\n",
        f"[supervisord]\nlogfile={root}/supervisord.log\n"
        f"pidfile={root}/supervisord.pid\nnodaemon=true\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = "
        "supervisor.rpcinterface:make_main_rpcinterface\n",
        f"[supervisorctl]\nserverurl=unix://{control}\n",
    ]
    parts += [
        f"[program:{name}]\ncommand={command}\n"
        f"environment={given}\nautorestart=true\nstartsecs=4\nstartretries=1\n"
        f"stopsignal=TERM\nstopwaitsecs=45\nkillasgroup=true\nstopasgroup=false\n"
        f"redirect_stderr=true\nstdout_logfile={root}/{name}.log\n"
        f"stdout_logfile_maxbytes=0\n"
        for name, command in programs.items()
    ]
    return "\n".join(parts)


def free_port() -> int:
    """Return a port of the loopback address that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
