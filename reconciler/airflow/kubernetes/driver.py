"""Driver for Airflow on Kubernetes: REST for pools and health, rollouts for restarts.

A restart is `kubectl rollout restart`: the daemon changes one annotation of pod templates and
nothing else. A GitOps tool that manages the release must ignore that annotation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from reconciler.airflow.declared import Declared
from reconciler.airflow.gate import Gate
from reconciler.airflow.kubernetes import events, rollout
from reconciler.airflow.kubernetes.proofs import Proofs
from reconciler.airflow.kubernetes.release import Release, component_of, mark_of, replicas_of
from reconciler.airflow.reports import ReportHistory
from reconciler.airflow.rest import AirflowApi
from reconciler.airflow.steps import RestSteps, served
from reconciler.cluster.cluster import Cluster
from reconciler.cluster.clusters import Clusters
from reconciler.cluster.connection import Json
from reconciler.core.definitions import Instance
from reconciler.core.errors import Away, GroundcrewError, Retryable, Stalled
from reconciler.core.formatting import iso
from reconciler.core.loaded import Loaded
from reconciler.core.model import Activation, Problem, Reports, StepResult
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import SERVERS
from reconciler.core.runtime import Base
from reconciler.failpoints import failpoint

LAST_LINES = 12  # of a crashed container's log that are reported
LOOK_FOR = 5.0  # seconds that one check of a rollout waits for a change
"""Reasons that may resolve by themselves."""

Workload = tuple[str, Json]  # kind and object


class KubernetesDriver:
    """Driver of instances with `kubernetes:`; used from several threads, for different instances.

    `declared` returns the providers and plugins of a build; `check` raises if this daemon may not
    act; `wake` wakes the loop when an image has changed. `settle` is the number of seconds that
    each restarted pod must stay up before the gate is passed, `watch` the number of seconds that
    the instance must stay healthy after its pools are restored. `loader_since` returns when an
    instance's loader began to leave proofs.
    """

    def __init__(
        self,
        clusters: Clusters,
        secrets_dir: Path,
        declared: Callable[[str], Declared] = lambda _: Declared(),
        *,
        check: Callable[[], None] = lambda: None,
        wake: Callable[[], None] = lambda: None,
        settle: float = 0.0,
        watch: float = 0.0,
        loader_since: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        self._proofs = Proofs(loader_since)
        self._settle = settle
        self._clusters = clusters
        self._rest = RestSteps(secrets_dir, check, watch)
        self._declared = declared
        self._wake = wake

    def permit(self, instance: Instance) -> None:
        """Permit everything: the cluster's Role decides."""

    def base(self, instance: Instance) -> Base:
        """Return the image of the running pods.

        Raises Retryable: ReleaseMissing, NoPods, MixedImages while a rollout is in progress.
        """
        release = self._release(instance)
        release.synced()
        release.workloads()
        images = release.images()
        where = f"instance {instance.name}: release {release.name} in {release.namespace}"
        if not images:
            raise Retryable(Reason.NO_PODS, f"{where} has no running pod that tells its image")
        several = release.outgoing()
        if several or len({image.id for image in images}) > 1:
            names = ", ".join(several or sorted({image.reference for image in images}))
            raise Retryable(
                Reason.MIXED_IMAGES,
                f"{where} runs several images: {names}; waiting until it is one",
            )
        return Base(image=min(images, key=repr))

    def fingerprint(self, instance: Instance) -> str:
        """Return a fingerprint of the running pods' image; never waits."""
        release = self._release(instance)
        release.pods_mirror.listen(self._looked)
        return release.mark()

    def processes(
        self, instance: Instance, load_into: Collection[str]
    ) -> tuple[Loaded, ...] | None:
        """Return what the pods of these components have loaded, by their logs."""
        release = self._release(instance)
        if not release.pods_mirror.fresh:
            return None
        return self._proofs.processes(release, instance, load_into)

    def oldest_process(self, instance: Instance, now: float) -> float | None:
        """Return when the oldest pod was created, of components and of tasks."""
        return self._release(instance).oldest(now)

    def _looked(self, old: Json | None, new: Json | None) -> None:
        if mark_of(old) != mark_of(new):
            self._wake()

    def _release(self, instance: Instance) -> Release:
        assert instance.kubernetes is not None, "this driver gets instances on Kubernetes only"
        return Release(self._clusters.of(instance.kubernetes.context), instance)

    # ---------------------------------------------------------------------------------- steps

    def reports(self, instance: Instance, activation: Activation, now: float) -> Reports:
        """Return what Airflow reports right before a restart."""
        return self._rest.reports(instance, activation, now)

    def perform(
        self, step: Step, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        """Carry out one step; see Driver. Raises Retryable while something does not respond."""
        release = self._release(instance)
        release.synced()
        rest = self._rest
        match step:
            case Step.OBSERVE:
                return self._observe(release, instance, activation, now)
            case Step.PAUSE | Step.PAUSE_BACK:
                return rest.pause(instance, activation, now)
            case Step.DRAIN | Step.DRAIN_BACK if not activation.pools and release.tasks_apart():
                return StepResult(Verdict.OK)
            case Step.DRAIN | Step.DRAIN_BACK:
                return rest.drain(instance, activation, now)
            case Step.RESTART | Step.RESTART_BACK | Step.RESTART_SERVERS_BACK:
                return self._restart(release, instance, activation, now)
            case Step.WATCH if not rest.watch:
                return StepResult(Verdict.OK)
            case Step.PROBE | Step.PROBE_BACK | Step.WATCH:
                return self._probe(release, instance, activation, now)
            case Step.RELEASE | Step.RELEASE_BACK | Step.RELEASE_ABORT:
                return rest.release(instance, activation)
            case _:
                raise AssertionError(f"{step} is not a driver's")

    def _observe(
        self, release: Release, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        """Record the current state, once it is certain that the restart can be carried out."""
        for kind, workload in _restarted(release, activation):
            message = rollout.frozen(kind, workload)
            if message:
                raise Stalled(Reason.NOT_RESTARTABLE, f"instance {instance.name}: {message}")
            left = rollout.lingering(release.pods_of(kind, workload), now)
            if left is not None:  # the restart would wait for its end
                raise Stalled(left.reason, f"instance {instance.name}: {left.message}")
            name = str(workload["metadata"]["name"])
            body = rollout.patch(iso(time.time()))
            try:
                release.cluster.patch(kind, release.namespace, name, body, dry_run=True)
            except Away as error:
                # nothing is started that could not be finished
                if error.reason is Reason.FORBIDDEN:
                    raise Stalled(error.reason, error.message) from error
                raise
        self._proofs.require(release, instance, activation)
        seen = self._rest.observe(instance, release.layout())
        if not (release.tasks_apart() and self._rest.adopts_tasks(instance)):
            return seen
        return replace(seen, pools=())  # tasks run in separate pods: nothing is paused or drained

    def _restart(
        self, release: Release, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        """Restart first everything but the servers, then these; return once there is a result."""
        workloads = _restarted(release, activation)
        servers = [w for w in workloads if component_of(w[1]) in SERVERS]
        others = [w for w in workloads if component_of(w[1]) not in SERVERS]
        if activation.step is Step.RESTART_SERVERS_BACK:  # tasks may run on the others
            others = []
        stamp, since = iso(activation.restarted_at), activation.step_since
        history = self._rest.history(instance, activation)
        for together in (others, servers):  # the API responds while the others start
            self._stamp_all(release, together, stamp)
            names = frozenset(str(w["metadata"]["name"]) for _, w in together)
            result = self._await(release, instance, activation, names, now, since)
            if result is not None:
                return result
            ended = [_progressed(history, release, one, stamp, now) for one in together]
            since = max([since, *ended])
        return StepResult(Verdict.OK)

    def _stamp_all(self, release: Release, workloads: list[Workload], stamp: str) -> None:
        for kind, workload in workloads:
            if not rollout.stamped(workload, stamp):
                failpoint("airflow.restart.components")
                name = str(workload["metadata"]["name"])
                release.cluster.patch(kind, release.namespace, name, rollout.patch(stamp))

    def _await(
        self,
        release: Release,
        instance: Instance,
        activation: Activation,
        names: frozenset[str],
        now: float,
        since: float,
    ) -> StepResult | None:
        """Wait a while for the rollouts of `names`, begun at `since`; return None once done."""
        stamp = iso(activation.restarted_at)
        deadline = time.monotonic() + LOOK_FOR
        while True:
            going = [
                (kind, workload, pods)
                for kind, workload in release.workloads()
                if str(workload["metadata"]["name"]) in names
                and not rollout.complete(workload, pods := release.pods_of(kind, workload), stamp)
            ]
            if not going:
                return None
            for one in going:
                waited = now + LOOK_FOR - activation.step_since
                problem = self._wrong(release.cluster, *one, stamp, waited)
                if problem is not None:
                    return StepResult(Verdict.FAILED, problem)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            release.pods_mirror.wait(_once(), min(left, 0.5))
        history = self._rest.history(instance, activation)
        for kind, workload, pods in going:
            progressed = _progressed(history, release, (kind, workload), stamp, now)
            problem = self._late(
                release, kind, workload, pods, instance, activation, now, since, progressed
            )
            if problem is not None:
                return StepResult(Verdict.FAILED, problem)
        told = "; ".join(rollout.progress(workload, pods, stamp) for _, workload, pods in going)
        return StepResult(Verdict.NOT_YET, Problem(Reason.RESTARTING, told), after=0.1)

    def _late(
        self,
        release: Release,
        kind: str,
        workload: Json,
        pods: list[Json],
        instance: Instance,
        activation: Activation,
        now: float,
        since: float,
        progressed: float,
    ) -> Problem | None:
        """Return a problem if a rollout takes too long.

        Each pod has the probe's limit to end its grace period, to make progress and to become
        ready, counted from the last progress of any pod: a pod that hangs is reported soon, and ten
        workers may still end and start one after the other. Time in which nothing could be observed
        does not count, since there may have been no progress either. All together have `longest`.
        """
        stamp, cluster = iso(activation.restarted_at), release.cluster
        idle = now - max(since, progressed)
        limit = rollout.longest(workload, instance.probe_timeout)
        if idle <= instance.probe_timeout and now - since <= limit:
            missing = kind == "statefulsets" and len(pods) < replicas_of(workload)
            if not missing or idle <= cluster.limits.schedule_timeout:
                return None
            return events.refused(cluster, workload, pods, activation.restarted_by)
        left = rollout.lingering(pods, now)
        if left is not None:
            return left
        progress = rollout.progress(workload, pods, stamp)
        about = [workload, *(pod for pod in pods if not rollout.ready(pod))]
        why = events.newest(
            cluster, workload["metadata"]["namespace"], about, activation.restarted_by
        )
        spent = f"not restarted within {limit:.0f} s"
        if idle > instance.probe_timeout:
            spent = f"the restart has not got on for {idle:.0f} s"
        return Problem(Reason.ROLLOUT_TIMEOUT, f"{spent}: {progress}{'; ' if why else ''}{why}")

    def _wrong(
        self,
        cluster: Cluster,
        kind: str,
        workload: Json,
        pods: list[Json],
        stamp: str,
        waited: float,
    ) -> Problem | None:
        """Return what keeps a rollout from ever ending; delete pods that block a StatefulSet."""
        for pod in rollout.stuck(kind, workload, pods, stamp):
            metadata = pod["metadata"]
            cluster.delete("pods", metadata["namespace"], metadata["name"], uid=metadata["uid"])
        patience = cluster.limits.schedule_timeout
        broken = rollout.broken(pods, stamp)
        if broken is not None:
            pod, problem = broken
            if not problem.reason.policy.patient or waited > patience:
                return self._with_last_words(cluster, pod, problem)
        failed = rollout.failure(workload) if rollout.stamped(workload, stamp) else None
        if failed is not None and (not failed.reason.policy.patient or waited > patience):
            return failed
        return None

    def _with_last_words(self, cluster: Cluster, pod: Json, problem: Problem) -> Problem:
        """Return a crash with the last lines that the container wrote."""
        container = rollout.crashed(pod)
        if not container:
            return problem
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            text = cluster.logs(namespace, name, container, tail=LAST_LINES, previous=True)
            text = text or cluster.logs(namespace, name, container, tail=LAST_LINES)
        except GroundcrewError:
            text = ""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        said = "\n".join(lines[-LAST_LINES:])[-1500:]
        message = f"{problem.message}; it said last:\n{said}"
        return Problem(problem.reason, message) if said else problem

    def _probe(
        self, release: Release, instance: Instance, activation: Activation, now: float
    ) -> StepResult:
        stamp = iso(activation.restarted_at)
        history = self._rest.history(instance, activation)
        starts: dict[str, float] = {}
        for kind, workload in _restarted(release, activation):
            component = component_of(workload)
            pods = release.pods_of(kind, workload)
            problem = self._wrong(release.cluster, kind, workload, pods, stamp, 0.0)
            if problem is not None:
                return StepResult(Verdict.FAILED, problem)
            starts[component] = max(starts.get(component, 0.0), rollout.started(pods))
        unproven = self._proofs.verdict(release, instance, activation, now)
        if unproven is not None:
            return unproven
        components = release.components()
        build, loads = served(activation)
        wanted = build is not None and loads and components & {*SERVERS}
        gate = Gate(
            activation,
            history,
            components=components,
            started=starts,
            declared=self._declared(build) if build is not None and wanted else Declared(),
        )

        def look(api: AirflowApi) -> StepResult:
            result = gate.look(api)
            since = {name: _up_since(history, name, at, now) for name, at in starts.items()}
            left = rollout.unsettled(since, now, self._settle)
            if result.verdict is not Verdict.OK or not left:
                return result
            return StepResult(Verdict.NOT_YET, Problem(Reason.SETTLING, left), after=1.0)

        return self._rest.probe(instance, activation, now, look)


def _restarted(release: Release, activation: Activation) -> list[Workload]:
    """Return the workloads that load either build and are not scaled to zero."""
    return [
        (kind, workload)
        for kind, workload in release.workloads()
        if component_of(workload) in activation.components and replicas_of(workload)
    ]


def _progressed(
    history: ReportHistory, release: Release, one: Workload, stamp: str, now: float
) -> float:
    """Return when the pods of a workload last got on, with the time that one has to terminate.

    A gap in what was observed counts as progress: there may have been some.
    """
    pods = release.pods_of(*one)
    mark = rollout.moved(pods, stamp) + release.seen_since
    return history.first_seen(str(one[1]["metadata"]["name"]), mark, now) + rollout.grace(pods)


def _up_since(history: ReportHistory, component: str, at: float, now: float) -> float:
    """Return since when a component has been up, by the cluster's clock if it may be trusted."""
    first_seen = history.first_seen(component, at, now)
    return first_seen if history.is_clock_set else min(at, first_seen)


def _once() -> Callable[[], bool]:
    """Return a predicate that holds from its second call on: after one change."""
    calls = iter((False,))
    return lambda: next(calls, True)
