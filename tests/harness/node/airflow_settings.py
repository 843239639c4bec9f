"""Accounts, secrets and configuration of a release, as the official chart renders them."""

from __future__ import annotations

from collections.abc import Callable

from tests.harness.kube_api import Json

HOME = "/opt/airflow"
KUBERNETES, CELERY, LOCAL = "KubernetesExecutor", "CeleryExecutor", "LocalExecutor"
CONFIG = """\
[core]
auth_manager = airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager
dags_folder = {dags}
execution_api_server_url = http://{address}:8080/execution/
executor = {executor}
load_examples = False
[dag_processor]
dag_bundle_config_list = [{{"classpath":"airflow.dag_processing.bundles.local.LocalDagBundle",\
"kwargs":{{}},"name":"dags-folder"}}]
min_file_process_interval = 20
refresh_interval = 5
[fab]
enable_proxy_fix = True
[kubernetes_executor]
delete_worker_pods = False
namespace = {namespace}
pod_template_file = /opt/airflow/pod_templates/pod_template_file.yaml
worker_container_repository = {repository}
worker_container_tag = {tag}
[workers]
execution_api_timeout = 60
[logging]
colored_console_log = False
[scheduler]
standalone_dag_processor = {standalone}
"""
SECRETS = {
    "fernet-key": "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE=",
    "api-secret-key": "api-secret-key-of-a-test",
    "jwt-secret": "jwt-secret-of-a-test" * 4,
}
GROUP = "rbac.authorization.k8s.io"


def accounts(release: str, namespace: str) -> list[Json]:
    """Return service accounts, and the roles that start pods of tasks and read their logs."""
    names = (
        "api-server",
        "webserver",
        "scheduler",
        "dag-processor",
        "triggerer",
        "worker",
        "migrate-database-job",
    )
    launcher = {
        "pods": ["create", "list", "get", "patch", "watch", "delete"],
        "pods/log": ["get"],
        "pods/exec": ["create", "get"],
        "events": ["list", "watch"],
    }
    reader = {"pods": ["list", "get", "watch"], "pods/log": ["get", "list"]}
    return [
        *(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": f"{release}-{name}"},
            }
            for name in names
        ),
        *_role(release, namespace, "pod-launcher", launcher, ("scheduler", "worker", "triggerer")),
        *_role(release, namespace, "pod-log-reader", reader, ("api-server",)),
    ]


def secrets(release: str, database: str, broker: str) -> list[Json]:
    """Return the secrets that the variables of every component refer to."""
    values = {
        **{name: {name: value} for name, value in SECRETS.items()},
        "metadata": {"connection": f"postgresql+psycopg2://{database}"},
        **({"broker-url": {"connection": broker}} if broker else {}),
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{release}-{name}"},
            "stringData": value,
        }
        for name, value in values.items()
    ]


def environment(release: str, *, signs: bool, celery: bool, airflow: str) -> list[Json]:
    """Return the variables of a component; `signs` if it gives tasks their tokens."""

    def secret(name: str, key: str) -> Json:
        return {"secretKeyRef": {"name": f"{release}-{name}", "key": key}}

    jwt = {"name": "AIRFLOW__API_AUTH__JWT_SECRET", "valueFrom": secret("jwt-secret", "jwt-secret")}
    key = {
        "name": "AIRFLOW__API__SECRET_KEY",
        "valueFrom": secret("api-secret-key", "api-secret-key"),
    }
    broker = {
        "name": "AIRFLOW__CELERY__BROKER_URL",
        "valueFrom": secret("broker-url", "connection"),
    }
    return [
        {"name": "AIRFLOW_HOME", "value": HOME},
        {"name": "AIRFLOW__CORE__FERNET_KEY", "valueFrom": secret("fernet-key", "fernet-key")},
        {
            "name": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
            "valueFrom": secret("metadata", "connection"),
        },
        {"name": "AIRFLOW_CONN_AIRFLOW_DB", "valueFrom": secret("metadata", "connection")},
        *(_two(secret) if airflow.startswith("2.") else [key, *([jwt] if signs else [])]),
        *([broker] if celery else []),
    ]


def _two(secret: Callable[[str, str], Json]) -> list[Json]:
    """Return the variables of Airflow 2 alone; the second lets passwords into its REST API."""
    return [
        {
            "name": "AIRFLOW__WEBSERVER__SECRET_KEY",
            "valueFrom": secret("api-secret-key", "api-secret-key"),
        },
        {
            "name": "AIRFLOW__API__AUTH_BACKENDS",
            "value": "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session",
        },
    ]


def _role(
    release: str,
    namespace: str,
    name: str,
    rules: dict[str, list[str]],
    components: tuple[str, ...],
) -> list[Json]:
    """Return a role, and its binding to the accounts of components."""
    role = f"{release}-{name}-role"
    return [
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Role",
            "metadata": {"name": role},
            "rules": [
                {"apiGroups": [""], "resources": [kind], "verbs": verbs}
                for kind, verbs in rules.items()
            ],
        },
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{role}binding"},
            "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role},
            "subjects": [
                {"kind": "ServiceAccount", "name": f"{release}-{component}", "namespace": namespace}
                for component in components
            ],
        },
    ]
