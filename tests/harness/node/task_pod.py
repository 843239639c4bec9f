"""Pod of the shape of a release's tasks that runs one command."""

from __future__ import annotations

import time

from tests.harness.kube_api import Json, wait_for
from tests.harness.node.node import GIVE_UP
from tests.harness.node.site import NodeSite

LOCAL = "/var/cache/groundcrew"


def run_in_pod(site: NodeSite, command: str, volume: Json | None = None) -> str:
    """Return what a command logs; the loader's own folder is on `volume` if there is one."""
    template = site.release.pod_template()
    container = template["spec"]["containers"][0]
    if volume is not None:
        template["spec"]["volumes"].append({"name": "local", **volume})
        container["volumeMounts"].append({"name": "local", "mountPath": LOCAL})
        container["env"].append({"name": "GROUNDCREW_LOCAL", "value": LOCAL})
    container["args"] = ["bash", "-c", command]
    name = f"one-command-{time.monotonic_ns()}"
    # No labels: it is none of the release's pods.
    pod = {**template, "metadata": {"name": name}}
    made = site.node.api.create("pods", site.airflow, pod)

    def is_over() -> bool:
        current = site.node.api.get("pods", site.airflow, name) or {}
        return current.get("status", {}).get("phase") in ("Succeeded", "Failed")

    wait_for(is_over, GIVE_UP, f"the end of pod {name}")
    log = site.node.log(site.airflow, made)
    site.node.api.delete("pods", site.airflow, name)
    return log
