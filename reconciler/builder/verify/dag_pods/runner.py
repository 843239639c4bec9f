"""Execution of the Jobs that parse the DAGs of releases.

If only this instance's release or cluster prevents the check (no right to create Jobs, no space,
DAGs in a place that cannot be mounted), its DAGs stay unseen, with a message: the build continues,
and the probe after the switch still guards the instance. An obstacle that may disappear by itself
is Retryable.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.kubernetes.executor import Sessions
from reconciler.builder.executor.kubernetes.manifest import CONTAINER, MANAGED
from reconciler.builder.executor.kubernetes.outcomes import lost
from reconciler.builder.executor.kubernetes.startup import Startup
from reconciler.builder.verify.candidate import NO_BUILD, Candidate
from reconciler.builder.verify.dag_pods.dag_parser import PREFIX
from reconciler.builder.verify.dag_pods.judgement import Judgement, judge
from reconciler.builder.verify.dag_pods.manifest import COMPONENT, DagOrder, dag_job
from reconciler.builder.verify.dag_pods.report import Report, read_report
from reconciler.builder.verify.dag_pods.source import Source, Unseen, source_of
from reconciler.cluster.cluster import Cluster
from reconciler.core.definitions import Instance, KubernetesTarget, Place
from reconciler.core.errors import Away, GroundcrewError, Retryable, Stalled
from reconciler.core.model import DagCheck
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.documents import Malformed
from reconciler.isolation import TooExpensive, read_for

PODS = f"{MANAGED},app.kubernetes.io/component={COMPONENT}"
POLL_INTERVAL = 0.5
LOG_LINES = 5000

Json = dict[str, Any]


Parsers = Callable[[Instance], tuple[str, Json]]
"""Returns (component, pod template) of the component that parses an instance's DAGs.

Raises Retryable.
"""


@dataclass(frozen=True, slots=True)
class DagPods:
    """Parser of the DAGs of releases; `program` is its own, on the share."""

    sessions: Sessions
    parser_of: Parsers
    timeout: float
    program: str = "dag_parser.py"
    enabled: bool = True

    def check(
        self,
        job: BuildJob,
        runtime: Runtime,
        instance: Instance,
        candidate: Candidate,
        place: Place | None,
    ) -> DagCheck:
        """Parse the DAGs of an instance with a candidate; return the result and which were seen.

        `place` is the place that asks for the build. Raises Stalled("VerificationFailed") for a DAG
        that breaks with it, Retryable if the Job is lost.
        """
        try:
            report, source = self._parse(job, runtime, instance, candidate)
        except Unseen as error:
            job.say(f"the DAGs of {instance.name} were not seen: {error.message}")
            return DagCheck(instance.name, unseen=error.message)
        active = candidate.active
        reference = f"with the active build {active}" if active else "on the base alone"
        judgement = judge(report, instance.name, source.description, reference)
        _tell(job, judgement)
        for file, verdict, traceback in judgement.against:
            job.say(traceback)
            what = f"the DAG {file} of instance {instance.name} {verdict}" if file else verdict
            raise Stalled(Reason.VERIFICATION_FAILED, what, place)
        return judgement.check

    def _parse(
        self, job: BuildJob, runtime: Runtime, instance: Instance, candidate: Candidate
    ) -> tuple[Report, Source]:
        target = instance.kubernetes
        assert target is not None, "a release is on Kubernetes"
        if not self.enabled:
            raise Unseen("kubernetes.verify_dags is off in the daemon's settings")
        component, template = self.parser_of(instance)
        source = source_of(
            template,
            component,
            str(self.sessions.share.root),
            instance.dags,
            as_release=instance.checks_as_release,
        )
        name = f"groundcrew-dags-{job.key}-{secrets.token_hex(3)}"
        order = DagOrder(
            name,
            target.namespace,
            job.team,
            job.key,
            instance.name,
            component,
            target.release,
            candidate.build_id,
            candidate.active or NO_BUILD,
            candidate.loader,
            self.sessions.tools / self.program,
            self.timeout,
            instance.checks_as_release,
        )
        manifest = dag_job(order, source, runtime, self.sessions.settings.jobs)
        job.say(f"parsing the DAGs of {instance.name} from {source.description}")
        assert runtime.image is not None, "a release runs an image"
        with self.sessions.apart(job, runtime.image, name):
            cluster = self.sessions.clusters.of(target.context)
            lines = _Run(cluster, self.sessions, target, name, job).run(manifest)
        for line in lines:
            if not line.startswith(PREFIX):
                job.say(line)
        try:
            return read_for(job.team, read_report, lines), source
        except (Malformed, TooExpensive) as error:
            tail = " ".join(line for line in lines if not line.startswith(PREFIX))[-300:]
            raise Unseen(f"{error}: {tail}" if tail else str(error)) from error


@dataclass(slots=True)
class _Run:
    """One Job, from its creation to the lines of its log."""

    cluster: Cluster
    sessions: Sessions
    target: KubernetesTarget
    name: str
    job: BuildJob
    begun: float = field(default_factory=time.monotonic)
    seen: bool = False

    def run(self, manifest: Json) -> list[str]:
        """Return the log of the Job, which is gone afterwards. Raises Unseen or Retryable."""
        namespace = self.target.namespace
        mirror = self.cluster.mirror("pods", namespace, PODS)
        mirror.synced(self.cluster.limits.request_timeout)
        self.begun = time.monotonic()
        try:
            self.cluster.create("jobs", namespace, manifest)
        except Away as error:
            if error.reason is not Reason.FORBIDDEN:
                raise
            raise Unseen(
                f"the daemon may not make Jobs in namespace {namespace}: leave verifyDags of the "
                f"Helm chart on and upgrade it, or grant it ({error.message})"
            ) from error
        except Stalled as error:
            raise Unseen(f"Kubernetes refuses the Job: {error.message}") from error
        try:
            return self._watch()
        finally:
            with contextlib.suppress(GroundcrewError):
                self.cluster.delete("jobs", namespace, self.name)

    def _watch(self) -> list[str]:
        timeout = self.sessions.settings.jobs.start_timeout
        startup = Startup(self.cluster, self.target.namespace, PODS, self.name, timeout)
        while True:
            pod = startup.pod()
            phase = ((pod or {}).get("status") or {}).get("phase")
            if pod is not None and phase in ("Succeeded", "Failed"):
                return self._ended(pod)
            if pod is not None and pod["metadata"].get("deletionTimestamp"):
                raise Retryable(Reason.JOB_LOST, f"Job {self.name} was lost; parsing the DAGs anew")
            if self.seen and pod is None:
                raise Retryable(
                    Reason.JOB_LOST, f"Job {self.name} was deleted; parsing the DAGs anew"
                )
            self.seen = self.seen or pod is not None
            if phase != "Running":
                why = startup.late(pod, time.monotonic() - self.begun, self._require_job)
                if why:
                    raise Unseen(why)
            if self.job.cancelled.wait(POLL_INTERVAL):
                self.job.check()

    def _ended(self, pod: Json) -> list[str]:
        name, namespace = str(pod["metadata"]["name"]), self.target.namespace
        statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
        broken = next(
            (
                s
                for s in statuses
                if ((s.get("state") or {}).get("terminated") or {}).get("exitCode")
            ),
            None,
        )
        container = str(broken["name"]) if broken is not None else CONTAINER
        lines = self.cluster.logs(namespace, name, container, tail=LOG_LINES).splitlines()
        if broken is not None:
            said = " ".join(lines[-5:])[-300:]
            raise Unseen(f"the container {container} of the pod that parses DAGs failed: {said}")
        if any(line.startswith(PREFIX) for line in lines):
            return lines
        error = lost(self.name, pod, self.sessions.settings.jobs, time.monotonic() - self.begun)
        tail = " ".join(lines[-5:])[-300:]
        if isinstance(error, Stalled):
            raise Unseen(error.message)
        if (pod.get("status") or {}).get("reason"):  # evicted, or its node is lost
            raise error
        raise Unseen(f"the pod that parses DAGs gave no report: {tail}")

    def _require_job(self) -> None:
        if self.cluster.get("jobs", self.target.namespace, self.name) is None:
            raise Retryable(Reason.JOB_LOST, f"Job {self.name} was deleted; parsing the DAGs anew")


def sweep(
    sessions: Sessions, namespaces: Iterable[tuple[str | None, str]], say: Callable[[str], None]
) -> None:
    """End the Jobs that an earlier daemon left in namespaces of releases."""
    for context, namespace in sorted(namespaces, key=str):
        try:
            for document in sessions.clusters.of(context).list("jobs", namespace, PODS):
                name = str(document["metadata"]["name"])
                if sessions.left_by_another(name):
                    sessions.clusters.of(context).delete("jobs", namespace, name)
        except GroundcrewError as error:
            say(f"Jobs of an earlier daemon in {namespace}: {error}")


def _tell(job: BuildJob, judgement: Judgement) -> None:
    check = judgement.check
    job.say(f"parsed {check.seen} DAG files of {check.instance} from {check.source}")
    for file in check.failing:
        job.say(f"{file} does not parse without this build either")
    for file, why in check.unjudged:
        job.say(f"{file} is not judged: {why}")
    if check.unseen:
        job.say(f"not seen: {check.unseen}")
