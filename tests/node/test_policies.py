"""Network policies of the chart, enforced: what they let through, and what not."""

from __future__ import annotations

import itertools
import socketserver
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from reconciler.builder.verify.dag_pods.manifest import NETWORK_LABEL
from scripts.manifests import render
from tests.harness.kube_api import Json, wait_for
from tests.harness.node.airflow_release import USER
from tests.harness.node.gitserver import GIT_PORT
from tests.harness.node.images import DEBIAN_IMAGE
from tests.harness.node.network import HOST
from tests.harness.node.node import GIVE_UP, Node
from tests.harness.node.policies import enforced

pytestmark = pytest.mark.nightly

OURS = {"app.kubernetes.io/managed-by": "groundcrew"}
JOB = {**OURS, "app.kubernetes.io/component": "build"}
PARSER = {**OURS, "app.kubernetes.io/component": "dags", NETWORK_LABEL: "none"}
INDEXES, AIRFLOW = 8086, 8080  # ports of the daemon for packages, and of Airflow's API
OTHER = 9999  # a port of this machine that no policy names
LISTEN = """\
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => {port}, Listen => 9, ReuseAddr => 1) or die;
while (1) {{ my $client = $server->accept; close $client if $client; }}
"""
# A pod's rules come seconds after the pod: the last of the tries is what counts.
TRY = """\
for number in $(seq 12); do
    if timeout 3 bash -c ': </dev/tcp/{host}/{port}' 2>/dev/null; then seen=open; else seen=shut; fi
    sleep 1
done
echo "it is $seen"
"""
numbers = itertools.count(1)


def test_jobs_reach_the_daemon_and_nothing_else(node: Node) -> None:
    """The same addresses are open to a pod that no policy selects."""
    node.runtime.load_debian()
    home, builds, airflow = (node.namespace(stem) for stem in ("home", "builds", "airflow"))
    values = {
        "config": {"git": {"url": f"git://{HOST}/environments", "allow_schemes": ["git"]}},
        "airflowNamespaces": [airflow],
        "builds": {"namespace": builds, "create": False},
        "networkPolicy": {"egressPorts": [node.plane.port, GIT_PORT]},
        "share": {"existing": True},
    }
    documents = list(render(values, home))
    node.apply(d for d in documents if d["kind"] == "NetworkPolicy")
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    daemon = deployment["spec"]["template"]["metadata"]["labels"]
    try:
        with enforced(node), listening(GIT_PORT), listening(OTHER):
            packages = serve(node, home, daemon, "indexes", INDEXES)
            api = serve(node, airflow, {}, "api", AIRFLOW)
            cases = {
                "a Job, packages": (builds, JOB, packages, INDEXES, "open"),
                "a Job, git": (builds, JOB, HOST, GIT_PORT, "shut"),
                "a Job, Airflow": (builds, JOB, api, AIRFLOW, "shut"),
                "a DAG parser, git": (airflow, PARSER, HOST, GIT_PORT, "shut"),
                "a DAG parser, Airflow": (airflow, PARSER, api, AIRFLOW, "shut"),
                "the daemon, git": (home, daemon, HOST, GIT_PORT, "open"),
                "the daemon, the API server": (home, daemon, HOST, node.plane.port, "open"),
                "the daemon, Airflow": (home, daemon, api, AIRFLOW, "open"),
                "the daemon, elsewhere": (home, daemon, HOST, OTHER, "shut"),
                "another pod, packages": (airflow, {}, packages, INDEXES, "shut"),
                "another pod, git": (airflow, {}, HOST, GIT_PORT, "open"),
                "another pod, Airflow": (airflow, {}, api, AIRFLOW, "open"),
                "another pod, elsewhere": (airflow, {}, HOST, OTHER, "open"),
            }
            with ThreadPoolExecutor(len(cases)) as pool:
                looks = [pool.submit(look, node, *case[:4]) for case in cases.values()]
                seen = {name: one.result() for name, one in zip(cases, looks, strict=True)}
        assert seen == {name: case[4] for name, case in cases.items()}
    finally:
        node.drop(home, builds, airflow)


@contextmanager
def listening(port: int) -> Iterator[None]:
    """Listen on a port of this machine, as pods see it."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer((HOST, port), socketserver.BaseRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def serve(node: Node, space: str, labels: Mapping[str, str], name: str, port: int) -> str:
    """Start a pod that listens on a port; return its address."""
    program = ["perl", "-e", LISTEN.format(port=port)]
    ports = [{"name": name, "containerPort": port}]
    made = _start(node, space, labels, {"command": program, "ports": ports})

    def address() -> str:
        pod = node.api.get("pods", space, made) or {}
        is_running = pod.get("status", {}).get("phase") == "Running"
        return str(pod["status"]["podIP"]) if is_running else ""

    return wait_for(address, GIVE_UP, f"pod {made} to listen")


def look(node: Node, space: str, labels: Mapping[str, str], host: str, port: int) -> str:
    """Return whether a pod with these labels reaches a port: `open` or `shut`."""
    command = ["bash", "-c", TRY.format(host=host, port=port)]
    made = _start(node, space, labels, {"command": command})

    def ended() -> Json | None:
        pod = node.api.get("pods", space, made) or {}
        return pod if pod.get("status", {}).get("phase") in ("Succeeded", "Failed") else None

    return node.log(space, wait_for(ended, GIVE_UP, f"the end of pod {made}")).split()[-1]


def _start(node: Node, space: str, labels: Mapping[str, str], container: Json) -> str:
    """Create a pod; return its name."""
    name = f"pod-{next(numbers)}"
    main = {"name": "main", "image": DEBIAN_IMAGE, "imagePullPolicy": "IfNotPresent", **container}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsUser": USER},
        "terminationGracePeriodSeconds": 1,
        "containers": [main],
    }
    node.api.create(
        "pods", space, {"metadata": {"name": name, "labels": dict(labels)}, "spec": spec}
    )
    return name
