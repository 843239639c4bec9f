"""Network policies of the chart, enforced: what they let through, and what not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.builder.executor.kubernetes.manifest import CONTAINER
from reconciler.builder.verify.dag_pods.manifest import NETWORK_LABEL
from tests.harness.kube_api import Json, wait_for
from tests.harness.node.airflow_release import USER
from tests.harness.node.gitserver import GIT_PORT
from tests.harness.node.images import DEBIAN_IMAGE
from tests.harness.node.installation import Installation
from tests.harness.node.network import HOST
from tests.harness.node.policies import enforced
from tests.harness.node.site import GIVE_UP, NodeSite

pytestmark = pytest.mark.nightly

OURS = {"app.kubernetes.io/managed-by": "groundcrew"}
JOB = {**OURS, "app.kubernetes.io/component": "build"}
PARSER = {**OURS, "app.kubernetes.io/component": "dags", NETWORK_LABEL: "none"}
INDEXES = 8086  # the daemon's port for packages
# A pod's rules come seconds after the pod: the last of the tries is what counts.
TRY = """\
for number in $(seq 12); do
    if timeout 3 bash -c ': </dev/tcp/{host}/{port}' 2>/dev/null; then seen=open; else seen=shut; fi
    sleep 1
done
echo "it is $seen"
"""


@pytest.fixture
def guarded(site: NodeSite) -> Iterator[Installation]:
    """Yield an installation on a node that enforces policies."""
    site.let_tasks_end()
    site.node.runtime.load_debian()
    with Installation(site) as installation, enforced(site.node):
        yield installation


def test_the_policies_let_builds_work_and_jobs_reach_nothing_else(
    guarded: Installation, site: NodeSite
) -> None:
    """The same addresses are open to a pod that no policy selects."""
    site.reach_a_version()
    version = site.next_version()
    site.commit(version)
    site.wait_active(version)

    daemon = guarded.pod()["status"]["podIP"]
    airflow = site.rest.address
    cases = {
        "a Job, packages": (site.builds, JOB, daemon, INDEXES, "open"),
        "a Job, git": (site.builds, JOB, HOST, GIT_PORT, "shut"),
        "a Job, Airflow": (site.builds, JOB, airflow, 8080, "shut"),
        "a DAG parser, git": (site.airflow, PARSER, HOST, GIT_PORT, "shut"),
        "a DAG parser, Airflow": (site.airflow, PARSER, airflow, 8080, "shut"),
        "another pod, packages": (site.airflow, {}, daemon, INDEXES, "shut"),
        "another pod, git": (site.airflow, {}, HOST, GIT_PORT, "open"),
        "another pod, Airflow": (site.airflow, {}, airflow, 8080, "open"),
    }
    with ThreadPoolExecutor(len(cases)) as pool:
        seen = dict(zip(cases, pool.map(lambda c: look(site, *c[:4]), cases.values()), strict=True))
    assert seen == {name: case[4] for name, case in cases.items()}


def look(site: NodeSite, space: str, labels: Mapping[str, str], host: str, port: int) -> str:
    """Return whether a pod with these labels reaches a port: `open` or `shut`."""
    name = f"look-{abs(hash((space, *labels, host, port)))}"
    container = {
        "name": CONTAINER,
        "image": DEBIAN_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["bash", "-c", TRY.format(host=host, port=port)],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    pod: Json = {"metadata": {"name": name, "labels": dict(labels)}, "spec": spec}
    made = site.node.api.create("pods", space, pod)

    def is_over() -> bool:
        current = site.node.api.get("pods", space, name) or {}
        return current.get("status", {}).get("phase") in ("Succeeded", "Failed")

    wait_for(is_over, GIVE_UP, f"the end of pod {name}")
    log = site.node.log(space, made)
    site.node.api.delete("pods", space, name)
    return log.split()[-1]
