"""Rollouts by real controllers: ownership of pods, order, and time limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow.kubernetes.release import RESTARTED_AT
from reconciler.core.errors import Stalled
from reconciler.core.model import Activation
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from tests.fakes.activations import loading
from tests.fakes.releases import CELERY, Release
from tests.harness.kube_api import Json, wait_for
from tests.harness.laboratory import Lab
from tests.harness.release_driver import Stand, standing

SETS = Release(executor=CELERY, groomers=False, grace=1, sets=("heavy",))


@pytest.fixture
def stand(lab: Lab, tmp_path: Path) -> Iterator[Stand]:
    with standing(lab, tmp_path) as stand:
        yield stand


def back(stand: Stand) -> Activation:
    """Return the restart on the way back, which has a stamp of its own."""
    return replace(stand.activation(Step.RESTART_BACK), restarted_at=time.time() + 1)


def stamps(stand: Stand, prefix: str) -> set[str]:
    """Return the restart stamps of a workload's pods."""
    return {
        pod["metadata"]["annotations"].get(RESTARTED_AT, "")
        for pod in stand.lab.pods(stand.space)
        if pod["metadata"]["name"].startswith(prefix)
    }


@pytest.mark.parametrize("persistence", [True, False], ids=["StatefulSets", "Deployments"])
def test_sets_of_workers_are_workloads_of_their_own(stand: Stand, persistence: bool) -> None:
    """They are restarted; a broken set is named in the failure; the way back repairs both."""
    stand.install(replace(SETS, persistence=persistence, replicas={"worker-heavy": 2}))
    stand.up()
    assert stand.perform(stand.activation()).verdict is Verdict.OK
    assert len(stamps(stand, "airflow-worker-")) == 1

    stand.change("worker-heavy", {"mode": "crashloop", "log": "no such queue\n"})
    failed = stand.perform(replace(stand.activation(), restarted_at=time.time() + 1), 20)
    assert failed.verdict is Verdict.FAILED
    assert failed.problem is not None
    assert failed.problem.reason == Reason.CRASH_LOOP
    assert "airflow-worker-heavy-" in failed.problem.message
    assert "no such queue" in failed.problem.message

    stand.change("worker-heavy", {"mode": "ok"})
    returned = replace(back(stand), restarted_at=time.time() + 2)
    assert stand.perform(returned).verdict is Verdict.OK
    stand.up()
    assert len(stamps(stand, "airflow-worker-")) == 1


@pytest.mark.parametrize("mode", ["notready", "hang"])
def test_a_pod_of_a_statefulset_that_hangs_is_healed_on_the_way_back(
    stand: Stand, mode: str
) -> None:
    """Nothing shows what is wrong with it, and its controller would wait for it for ever."""
    stand.install(Release(executor=CELERY, groomers=False, grace=1, replicas={"worker": 2}))
    stand.up()
    stand.change("worker", {"mode": mode})
    stand.instance = replace(stand.instance, probe_timeout=2.0)
    assert stand.perform(stand.activation(), 30).verdict is Verdict.FAILED
    stand.change("worker", {"mode": "ok"})
    stand.instance = replace(stand.instance, probe_timeout=20.0)
    outcome = stand.perform(back(stand))
    assert outcome.verdict is Verdict.OK, outcome.problem
    stand.up()


def test_a_ready_pod_is_left_to_its_controller(stand: Stand) -> None:
    """It may run tasks: its owner replaces workers one after the other."""
    stand.install(Release(executor=CELERY, groomers=False, grace=1, replicas={"worker": 3}))
    stand.up()
    assert stand.perform(back(stand)).verdict is Verdict.OK
    deleted = [
        event["objectRef"]["name"]
        for event in stand.lab.plane.audit(stand.user)
        if event["verb"] == "delete"
    ]
    assert deleted == []


def test_a_rollout_that_never_ends_is_told_by_its_own_events(stand: Stand) -> None:
    """Its progress comes first; no warning of a neighbour or from before the restart is shown."""
    stand.install(SETS)
    stand.up()
    (worker,) = [
        p for p in stand.lab.pods(stand.space) if p["metadata"]["name"] == "airflow-worker-0"
    ]
    warn(stand, worker, "BackOff", "of long ago", at=time.time() - 3600)
    stand.change("worker", {"mode": "notready"})
    stand.change("worker-heavy", {"mode": "ok"})
    stand.instance = replace(stand.instance, probe_timeout=4.0)
    activation = stand.activation()
    stand.driver.perform(activation.step, stand.instance, activation, time.time())
    own = wait_for(lambda: _newer(stand, "airflow-worker-0", worker), 20, "the restarted pod")
    (other,) = [
        p for p in stand.lab.pods(stand.space) if p["metadata"]["name"] == "airflow-worker-heavy-0"
    ]
    warn(stand, own, "FailedMount", "volume share is not there")
    warn(stand, other, "BackOff", "of a neighbour", at=time.time() + 5)
    outcome = stand.perform(activation, 30)
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.ROLLOUT_TIMEOUT
    message = outcome.problem.message
    assert "airflow-worker: 0 of 1 restarted pods are ready" in message
    assert "airflow-worker-0: FailedMount: volume share is not there" in message
    assert "of long ago" not in message
    assert "neighbour" not in message


def test_a_rollout_gets_its_time_from_when_it_last_got_on(stand: Stand) -> None:
    """Workers that start slowly one after the other take longer than the limit for one pod."""
    stand.install(Release(executor=CELERY, groomers=False, grace=1, replicas={"worker": 4}))
    stand.up()
    stand.change("worker", {"ready-after": "3"})
    stand.instance = replace(stand.instance, probe_timeout=7.0)
    begun = time.time()
    outcome = stand.perform(stand.activation(), 60)
    assert outcome.verdict is Verdict.OK, outcome.problem
    assert time.time() - begun > stand.instance.probe_timeout


def test_time_in_which_nobody_could_look_does_not_count(stand: Stand) -> None:
    """The daemon or the cluster's API was down for longer than a pod's limit; then it continues."""
    stand.install()
    stand.up()
    stand.change("scheduler", {"ready-after": "20"})
    stand.instance = replace(stand.instance, probe_timeout=12.0)
    activation = stand.activation()
    stand.driver.perform(activation.step, stand.instance, activation, time.time())
    stand.clusters.close()  # its caches are made again at the next request
    time.sleep(max(0.0, activation.restarted_at + 14.0 - time.time()))
    outcome = stand.perform(activation, 60)
    assert outcome.verdict is Verdict.OK, outcome.problem


def test_a_quota_on_a_statefulset_is_told_early(stand: Stand) -> None:
    """Only its events show it; a grace period of ten minutes per pod delays nobody."""
    stand.install(Release(executor=CELERY, groomers=False, replicas={"worker": 3}))
    stand.up()
    stand.instance = replace(stand.instance, probe_timeout=600.0)
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    stand.lab.api.create("resourcequotas", stand.space, quota)
    wait_for(
        lambda: (
            (stand.lab.api.get("resourcequotas", stand.space, "q") or {})
            .get("status", {})
            .get("used")
        ),
        20,
        "the quota to count",
    )
    only = ("worker",)
    activation = loading(stand.activation(), only, only)
    outcome = stand.perform(activation, 40)
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.QUOTA_EXCEEDED
    assert "airflow-worker-2" in outcome.problem.message
    assert "exceeded quota: q" in outcome.problem.message


@pytest.mark.parametrize("persistence", [True, False], ids=["StatefulSet", "Deployment"])
def test_a_component_scaled_to_nothing_is_not_asked_for(stand: Stand, persistence: bool) -> None:
    """No triggerer runs, so Airflow reports none; the gate opens all the same."""
    stand.install(Release(groomers=False, persistence=persistence, replicas={"triggerer": 0}))
    stand.up()
    activation = stand.activation()
    assert stand.perform(activation).verdict is Verdict.OK
    for component in stand.release.components:
        if component != "triggerer":
            stand.airflow.answer("POST", f"/_fake/restart/{component}", {}, b"{}")
    stand.airflow.state.unhealthy.add("triggerer")
    now = time.time()
    probe = replace(activation, step=Step.PROBE, step_since=now)
    outcome = stand.perform(probe)
    assert outcome.verdict is Verdict.OK, outcome.problem

    stand.install(replace(stand.release, replicas={"triggerer": 1}))
    stand.up()
    wait_for(
        lambda: stand.driver.perform(probe.step, stand.instance, probe, now).problem, 10, "a demand"
    )
    asked = stand.driver.perform(probe.step, stand.instance, probe, now)
    assert asked.problem is not None
    assert "triggerer is unhealthy" in asked.problem.message


def test_a_partition_is_refused_before_anything_changes(stand: Stand) -> None:
    """The pods below it keep the old template for ever."""
    stand.install(SETS)
    stand.up()
    body = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}
    stand.lab.api.patch("statefulsets", stand.space, "airflow-worker", body)

    def refused() -> str:
        try:
            stand.driver.perform(Step.OBSERVE, stand.instance, stand.activation(), time.time())
        except Stalled as error:
            return f"{error.reason}: {error.message}"
        return ""

    message = wait_for(refused, 10, "a refusal")
    assert message.startswith("NotRestartable")
    assert "airflow-worker" in message
    assert "partition" in message


def test_a_pod_that_a_dead_node_keeps_stops_an_activation_before_it_begins(stand: Stand) -> None:
    """No restart would ever finish because of it; the message has its node and what to do."""
    stand.install(SETS)
    stand.up()
    (pod,) = [p for p in stand.lab.pods(stand.space) if p["metadata"]["name"] == "airflow-worker-0"]
    node, late = pod["spec"]["nodeName"], time.time() + 90  # its grace period is a second
    stand.lab.kubelet.lose(node)
    try:
        stand.lab.api.delete("pods", stand.space, "airflow-worker-0")
        asked = stand.activation(Step.OBSERVE)

        def refused() -> str:
            try:
                stand.driver.perform(asked.step, stand.instance, asked, late)
            except Stalled as error:
                return f"{error.reason}: {error.message}"
            return ""

        message = wait_for(refused, 10, "a refusal")
    finally:
        stand.lab.kubelet.restore(node)
    assert message.startswith("PodStuck")
    assert "airflow-worker-0" in message
    assert node in message


def test_pods_that_tasks_make_are_no_components(stand: Stand) -> None:
    """KubernetesPodOperator may use Airflow's template, with all its labels and another image."""
    stand.install()
    stand.up()
    bare = stand.release.task_pod(stand.space, "bare", {"lab/mode": "notready"})
    bare["metadata"]["labels"]["component"] = "scheduler"
    del bare["metadata"]["labels"]["kubernetes_executor"]
    bare["spec"]["containers"][0]["image"] = "example.test/tools:1"
    stand.lab.api.create("pods", stand.space, bare)
    wait_for(
        lambda: (
            (stand.lab.api.get("pods", stand.space, "bare") or {})
            .get("status", {})
            .get("containerStatuses")
        ),
        20,
        "the task's pod",
    )
    wait_for(lambda: stand.driver.oldest_process(stand.instance, 0.0) is not None, 10, "a mirror")
    assert stand.driver.base(stand.instance).image is not None
    assert stand.perform(stand.activation()).verdict is Verdict.OK
    assert stand.lab.api.get("pods", stand.space, "bare")


def test_a_tasks_pod_without_the_charts_labels_holds_its_build(stand: Stand) -> None:
    """A custom template may lack them; the executor's label is always there."""
    stand.lab.api.create("serviceaccounts", stand.space, {"metadata": {"name": "airflow-worker"}})
    task = stand.release.task_pod(stand.space, "task-one", {"lab/mode": "ok"})
    for label in ("tier", "component", "release"):
        del task["metadata"]["labels"][label]
    made = stand.lab.api.create("pods", stand.space, task)["metadata"]["creationTimestamp"]
    time.sleep(1.1)  # the API writes whole seconds
    stand.install()
    stand.up()
    now = time.time()
    wait_for(lambda: stand.driver.oldest_process(stand.instance, now), 10, "the mirrors")
    oldest = stand.driver.oldest_process(stand.instance, now)
    assert oldest is not None
    assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(oldest)) == made


def test_one_digest_from_several_registries_is_one_image(stand: Stand) -> None:
    """Nodes may pull through different mirrors, and name the image after their mirror."""
    digest = "sha256:" + "a" * 64
    stand.install(replace(stand.release, image=f"apache/airflow@{digest}"))
    newer = replace(stand.release, image=f"mirror.test/apache/airflow@{digest}")
    part = [m for m in newer.manifests(stand.space) if m["metadata"]["name"] == "airflow-scheduler"]
    stand.lab.apply(part)
    stand.up()
    mark = wait_for(lambda: stand.driver.fingerprint(stand.instance), 10, "the fingerprint")
    image = stand.driver.base(stand.instance).image
    assert image is not None
    assert image.id == digest
    stand.install(newer)
    stand.up()
    assert stand.driver.fingerprint(stand.instance) == mark


def warn(stand: Stand, pod: Json, reason: str, message: str, at: float | None = None) -> None:
    """Create an event like a kubelet."""
    meta = pod["metadata"]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at or time.time()))
    stand.lab.api.create(
        "events",
        stand.space,
        {
            "metadata": {"generateName": f"{meta['name']}."},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta["name"],
                "namespace": stand.space,
                "uid": meta["uid"],
            },
        },
    )


def _newer(stand: Stand, name: str, older: Json) -> Json | None:
    pod = stand.lab.api.get("pods", stand.space, name)
    return pod if pod and pod["metadata"]["uid"] != older["metadata"]["uid"] else None
