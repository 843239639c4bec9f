"""Proofs of pods: what the loader wrote at the beginning of a container's log.

The daemon may read logs anyway, for the last lines of a container that crashed. Once a container
has left its proof, its log is not read again. Where the daemon may not read logs, or the beginning
of a log is gone, nothing is known, and nothing is held against the pod.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from reconciler.airflow.kubernetes.release import (
    RESTARTED_AT,
    Release,
    annotation,
    component_of,
    container_of,
    seconds,
)
from reconciler.airflow.proof import find
from reconciler.airflow.steps import LOOK_AGAIN, gate_timeout
from reconciler.cluster.cluster import Cluster
from reconciler.cluster.connection import Json
from reconciler.cluster.diagnose import main_of
from reconciler.core.definitions import Instance
from reconciler.core.errors import Away, Stalled
from reconciler.core.formatting import iso
from reconciler.core.loaded import Loaded, disagreement
from reconciler.core.model import Activation, Problem, StepResult
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason

HEAD = 256 << 10  # bytes of a log that are looked through
QUIET = 60.0  # seconds after its start in which a component has written its first line
DUE = 120.0  # seconds after its start in which a component has left its proof
LAST = 600.0  # seconds after its start in which a log without a proof is read again and again
KEPT = 10_000  # containers of which is known what they have left
SKEW = 60.0  # seconds that the clocks of the cluster and the share may differ


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence in a container's log: a proof, or none; `whole` is False if it may have had one."""

    proof: Loaded | None
    whole: bool = True

    @property
    def is_missing(self) -> bool:
        """Whether the container certainly has left no proof so far."""
        return self.proof is None and self.whole


class Proofs:
    """Proofs by the pod and container that left them; used from several threads.

    `loader_since` says when an instance's loader began to leave proofs, None if it does not yet.
    """

    def __init__(self, loader_since: Callable[[str], float | None]) -> None:
        self._loader_since = loader_since
        self._known: dict[tuple[str, str], Evidence] = {}
        self._lock = threading.Lock()

    def of(self, cluster: Cluster, pod: Json) -> Evidence:
        """Return what the pod's Airflow container has left; raises what the cluster says."""
        status = container_of(pod) or {}
        container = str(status.get("containerID") or "")
        mark = (str(pod["metadata"]["uid"]), container)
        with self._lock:
            known = self._known.get(mark)
        if known is not None:
            return known
        if not container or "running" not in (status.get("state") or {}):
            return Evidence(None)
        evidence = _read(cluster, pod)
        if evidence.proof is not None or time.time() - started(pod) > LAST:
            with self._lock:
                self._known[mark] = evidence
                while len(self._known) > KEPT:
                    del self._known[next(iter(self._known))]
        return evidence

    def processes(
        self, release: Release, instance: Instance, load_into: Collection[str]
    ) -> tuple[Loaded, ...]:
        """Return what the pods of these components have loaded, as far as that is certain."""
        since = self._loader_since(instance.name)
        processes = []
        for pod in release.pods():
            if component_of(pod) not in load_into or "deletionTimestamp" in pod["metadata"]:
                continue
            evidence = self.of(release.cluster, pod)
            if evidence.proof is not None:
                processes.append(evidence.proof)
            elif evidence.is_missing and _is_due(pod, since):
                processes.append(Loaded(component_of(pod), _name(pod), None, proven=False))
        return tuple(processes)

    def require(self, release: Release, instance: Instance, activation: Activation) -> None:
        """Raise Stalled if pods that run now show that no build would be loaded after a restart.

        These are pods that started when the loader was there already, and left no proof.
        """
        since = self._loader_since(instance.name)
        if since is None or activation.target.build is None:
            return
        bare = [
            pod
            for pod in release.pods()
            if component_of(pod) in activation.target.load_into
            and _is_due(pod, since)
            and self.of(release.cluster, pod).is_missing
        ]
        if bare:
            raise Stalled(
                Reason.LOADER_MISSING, f"instance {instance.name}: {_missing(instance, bare)}"
            )

    def verdict(
        self, release: Release, instance: Instance, activation: Activation, now: float
    ) -> StepResult | None:
        """Return what keeps restarted pods from being proven to run the build; None if nothing.

        On the way back no proof is asked for: what worked without one before works so again.
        """
        if activation.step is not Step.PROBE or activation.target.build is None:
            return None
        bare = []
        for pod in release.pods():
            is_restarted = annotation(pod, RESTARTED_AT) == iso(activation.restarted_at)
            if component_of(pod) not in activation.target.load_into or not is_restarted:
                continue
            evidence = self.of(release.cluster, pod)
            if evidence.proof is not None:
                problem = disagreement(evidence.proof, activation.target.build)
                if problem is not None:
                    return StepResult(Verdict.FAILED, problem)
            elif evidence.is_missing:
                bare.append(pod)
        if not bare:
            return None
        problem = Problem(Reason.LOADER_MISSING, _missing(instance, bare))
        if any(now - started(pod) > DUE for pod in bare if started(pod)):
            return StepResult(Verdict.FAILED, problem)
        if now - activation.step_since > instance.probe_timeout:
            return StepResult(Verdict.FAILED, gate_timeout(instance, problem))
        return StepResult(Verdict.NOT_YET, problem, after=LOOK_AGAIN)


def _name(pod: Json) -> str:
    return f"pod {pod['metadata']['name']}"


def _read(cluster: Cluster, pod: Json) -> Evidence:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    try:
        log = cluster.log_head(namespace, name, main_of(pod), HEAD)
    except Away as error:
        if error.reason is Reason.FORBIDDEN:
            return Evidence(None, whole=False)
        raise
    proof = find(log, _name(pod))
    if proof is None:
        return Evidence(None, whole=_is_whole(log, started(pod)))
    return Evidence(replace(proof, component=component_of(pod)))


def _is_due(pod: Json, since: float | None) -> bool:
    """Return True if a pod started with a loader that leaves proofs, and had the time for it."""
    begun = started(pod)
    return since is not None and begun > since + SKEW and time.time() - begun > DUE


def started(pod: Json) -> float:
    """Return when the pod's Airflow container started; 0.0 if it does not run."""
    state = (container_of(pod) or {}).get("state") or {}
    return seconds((state.get("running") or {}).get("startedAt"))


def _is_whole(log: str, since: float) -> bool:
    """Return True if a log, with a time before each line, begins with the container's start.

    Nodes keep the end of a long log only.
    """
    if not log:
        return True
    try:
        first = seconds(log.partition(" ")[0])
    except ValueError:
        return False
    return first - since < QUIET


def _missing(instance: Instance, pods: Collection[Json]) -> str:
    names = ", ".join(sorted(f"{component_of(p)} ({_name(p)})" for p in pods))
    return (
        f"started without the loader and therefore without any build: {names}; upgrade the release "
        f"with what `groundcrew airflow-values {instance.name}` prints: the share has to be "
        f"mounted and PYTHONPATH has to name the loader"
    )
