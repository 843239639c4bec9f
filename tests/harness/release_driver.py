"""Release on the laboratory's cluster, and a driver with the permissions that the chart grants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconciler.airflow.kubernetes.driver import KubernetesDriver
from reconciler.airflow.proof import MARK
from reconciler.cluster.clusters import Clusters
from reconciler.core.definitions import Api, Instance, KubernetesTarget, Place
from reconciler.core.model import Activation, Deployment, StepResult
from reconciler.core.phases import Step, Trigger, Verdict
from reconciler.settings import KubernetesSettings
from scripts.manifests import example, render
from tests.deploy.rendered import merged
from tests.fakes.airflow_rest import PASSWORD, USER, FakeAirflow
from tests.fakes.pod_status import Behaviour
from tests.fakes.releases import Release
from tests.harness.kube_api import Json
from tests.harness.laboratory import Administration, Lab

_PROOFS: dict[str, dict[str, dict[str, Any]]] = {}  # by namespace and component
_BEHAVIOURS: dict[str, dict[str, dict[str, str]]] = {}  # by namespace and component


def rights(
    lab: Administration,
    airflow: Iterable[str],
    builds: str,
    home: str = "",
    *,
    dags: bool = True,
) -> tuple[str, str]:
    """Return (user, token) of a daemon's account with the roles that the chart renders.

    `dags` is the chart's `verifyDags`.
    """
    home = home or lab.namespace("home")
    namespaces = {"airflowNamespaces": list(airflow), "builds": {"namespace": builds}}
    own = {**namespaces, "verifyDags": dags}
    values = merged(example("small"), own)
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    lab.apply(d for d in render(values, home) if d["kind"] in kinds)
    return f"system:serviceaccount:{home}:groundcrew", lab.plane.token_for(home, "groundcrew")


Rights = dict[tuple[str, str, str], set[str]]


def used(lab: Lab, user: str, namespace: str = "") -> Rights:
    """Return a user's requests by (group, resource, subresource). None may have been refused."""
    verbs: Rights = {}
    for event in lab.plane.audit(user):
        about = event.get("objectRef")
        if not about or "resource" not in about:
            continue
        if namespace and about.get("namespace") != namespace:
            continue
        assert event.get("responseStatus", {}).get("code") != 403, event
        key = (about.get("apiGroup", ""), about["resource"], about.get("subresource", ""))
        verbs.setdefault(key, set()).add(event["verb"])
    return verbs


@dataclass
class Stand:
    """Release in its own namespace, and a driver for it."""

    lab: Lab
    space: str
    root: Path
    airflow: FakeAirflow
    release: Release
    clusters: Clusters
    woken: threading.Event
    user: str

    def __post_init__(self) -> None:
        self.driver = KubernetesDriver(self.clusters, self.root / "secrets", wake=self.woken.set)
        self.instance = Instance(
            "red-dev",
            "red",
            Place("instances/red-dev.yaml", 1),
            Api(self.airflow.url, "airflow"),
            kubernetes=KubernetesTarget(self.space, self.release.name, "lab"),
            probe_timeout=20.0,
        )

    def install(self, release: Release | None = None, *, connected: bool = True) -> None:
        """Apply the release, with PYTHONPATH set to the loader if it has no variables."""
        self.release = release or self.release
        if connected and not self.release.env:
            value = f"/srv/groundcrew/instances/{self.instance.name}/loader"
            env = ({"name": "PYTHONPATH", "value": value},)
            self.release = replace(self.release, env=env)
        self.lab.apply(self.release.manifests(self.space))

    def up(self) -> None:
        """Wait until every workload is rolled out."""
        for kind, name in self.release.workloads:
            self.lab.rolled_out(kind.lower() + "s", self.space, name)

    def activation(self, step: Step = Step.RESTART) -> Activation:
        """Return an activation that is at a step now."""
        now = time.time()
        return Activation(
            "a1",
            Deployment(load_into=self.instance.load_into),
            Deployment("b" * 16, load_into=self.instance.load_into),
            Trigger.COMMIT,
            "r",
            step,
            now,
            now,
            restarted_at=now,
        )

    def perform(self, activation: Activation, seconds: float = 40) -> StepResult:
        """Repeat a step until it has ended; return its result."""
        end = time.monotonic() + seconds
        while True:
            outcome = self.driver.perform(activation.step, self.instance, activation, time.time())
            if outcome.verdict is not Verdict.NOT_YET:
                return outcome
            assert time.monotonic() < end, outcome.problem

    def change(self, component: str, annotations: dict[str, str], **spec: Any) -> None:
        """Change what the next pods of a component or set of workers do; restarts nothing."""
        name = f"{self.release.name}-{component}"
        (kind,) = (k.lower() + "s" for k, known in self.release.workloads if known == name)
        self.behaviours[component] = annotations
        if spec:
            self.lab.api.patch(kind, self.space, name, {"spec": spec})

    @property
    def proofs(self) -> dict[str, dict[str, Any]]:
        """Changes to the proofs of pods that start from now on."""
        return _PROOFS.setdefault(self.space, {})

    @property
    def behaviours(self) -> dict[str, dict[str, str]]:
        """Return the behaviour of pods that start from now on, by component or set of workers."""
        return _BEHAVIOURS.setdefault(self.space, {})


@contextmanager
def standing(lab: Lab, tmp_path: Path) -> Iterator[Stand]:
    """Yield a stand, and take it down at the end."""
    space = lab.namespace("driver")
    secret = tmp_path / "secrets" / "red" / "airflow"
    secret.mkdir(parents=True)
    (secret / "username").write_text(USER)
    (secret / "password").write_text(PASSWORD)
    user, token = rights(lab, [space], space)
    settings = KubernetesSettings.model_validate(
        {
            "kubeconfig": lab.plane.kubeconfig(tmp_path / "kubeconfig", token=token),
            "clusters": {"lab": {"schedule_timeout": 3}},
        }
    )
    clusters = Clusters(settings)
    lab.kubelet.behave, lab.kubelet.prove = _behave, _prove
    with FakeAirflow("3") as airflow:
        release = Release(groomers=False, persistence=False)
        yield Stand(lab, space, tmp_path, airflow, release, clusters, threading.Event(), user)
    clusters.close()
    lab.kubelet.behave, lab.kubelet.prove = lambda pod: None, lambda pod, container: ""
    lab.drop(space)


def _prove(pod: Json, container: Json) -> str:
    """Return what a container's loader says: all is well, unless a test says otherwise."""
    paths = [e["value"] for e in container.get("env") or [] if e["name"] == "PYTHONPATH"]
    component = (pod["metadata"].get("labels") or {}).get("component", "")
    if container["name"] != component or not any(p.endswith("/loader") for p in paths):
        return ""
    told = _PROOFS.get(pod["metadata"]["namespace"], {}).get(component, {})
    return proof_line(component, **{"build": "b" * 16, **told})


def proof_line(component: str, build: str, *, said: str = "", pinned: bool = False) -> str:
    """Return the line that a loader leaves."""
    proof = {"component": component, "build": build, "pinned": pinned, "local": False, "said": said}
    return f"{MARK}{json.dumps(proof)}\n"


def _behave(pod: Json) -> Behaviour | None:
    labels = pod["metadata"].get("labels") or {}
    component, known = (
        labels.get("component", ""),
        _BEHAVIOURS.get(pod["metadata"]["namespace"], {}),
    )
    asked = known.get(f"{component}-{labels.get('worker-set')}", known.get(component))
    if asked is None:
        return None
    marks = {f"lab/{key}": value for key, value in asked.items()}
    return Behaviour.of({"metadata": {**pod["metadata"], "annotations": marks}})
