"""The Kubernetes driver with a real API server: order, patience, and messages of failures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow.kubernetes.driver import KubernetesDriver
from reconciler.airflow.kubernetes.release import RESTARTED_AT
from reconciler.cluster.clusters import Clusters
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import SERVERS
from reconciler.settings import KubernetesSettings
from tests.fakes.releases import CELERY, KUBERNETES, LOCAL, Release
from tests.harness.kube_api import Json, wait_for
from tests.harness.laboratory import Lab
from tests.harness.release_driver import Stand, standing


@pytest.fixture
def stand(lab: Lab, tmp_path: Path) -> Iterator[Stand]:
    with standing(lab, tmp_path) as stand:
        yield stand


def test_a_restart_replaces_every_pod_and_servers_come_last(stand: Stand) -> None:
    """Deployments and StatefulSets alike; statsd, redis and running task pods are left alone."""
    stand.install(Release(version="3.1.0", executor=CELERY))
    stand.up()
    task = stand.release.task_pod(stand.space, "task-one", {"lab/mode": "ok"})
    stand.lab.api.create("pods", stand.space, task)
    before = {p["metadata"]["uid"]: p for p in stand.lab.pods(stand.space)}
    activation = stand.activation()
    assert stand.perform(activation).verdict is Verdict.OK
    after = stand.lab.pods(stand.space)
    kept = {_component(p) for p in after if p["metadata"]["uid"] in before}
    assert kept == {"statsd", "redis", "worker"}  # the worker is the task's pod
    assert [
        p["metadata"]["name"]
        for p in after
        if p["metadata"]["uid"] in before and _component(p) == "worker"
    ] == ["task-one"]
    made = {
        _component(p): p["metadata"]["creationTimestamp"]
        for p in after
        if p["metadata"]["uid"] not in before
    }
    assert set(made) == set(stand.release.components)
    assert all(made["api-server"] >= made[c] for c in made)
    stamps = {
        p["metadata"]["annotations"].get(RESTARTED_AT)
        for p in after
        if p["metadata"]["uid"] not in before
    }
    assert len(stamps) == 1


def test_a_component_that_keeps_running_is_left_alone(stand: Stand) -> None:
    """Its pods stay, and the gate asks for no new report of it."""
    stand.install(Release(executor=KUBERNETES))
    stand.up()
    seen = stand.perform(stand.activation(Step.OBSERVE))
    assert seen.layout is not None
    assert (seen.layout.scheduler_runs_tasks, seen.layout.unknown) == (False, "")
    assert seen.layout.components == tuple(sorted(stand.release.components))
    before = {p["metadata"]["uid"] for p in stand.lab.pods(stand.space)}
    servers = {*SERVERS} & {*stand.release.components}
    activation = replace(stand.activation(), kept=("scheduler", *servers))
    assert stand.perform(activation).verdict is Verdict.OK
    after = stand.lab.pods(stand.space)
    kept = {_component(p) for p in after if p["metadata"]["uid"] in before}
    assert kept & {*stand.release.components} == {"scheduler", *servers}


@pytest.mark.parametrize(
    ("executor", "runs"), [(CELERY, False), (LOCAL, True), ("LocalExecutor-Other", True)]
)
def test_a_scheduler_runs_tasks_unless_its_executor_says_otherwise(
    stand: Stand, executor: str, *, runs: bool
) -> None:
    """An executor that is not known counts as one that runs them in the scheduler."""
    variables = ({"name": "AIRFLOW__SECRETS__BACKEND", "value": "acme.secrets.Backend"},)
    stand.install(Release(executor=executor, env=variables))
    stand.up()
    layout = stand.perform(stand.activation(Step.OBSERVE)).layout
    assert layout is not None
    assert layout.scheduler_runs_tasks is runs
    assert "acme" in layout.configured


def test_a_restart_done_again_changes_nothing(stand: Stand) -> None:
    """After a crash of the daemon the same step finds its work done."""
    stand.install()
    stand.up()
    activation = stand.activation()
    assert stand.perform(activation).verdict is Verdict.OK
    before = {p["metadata"]["uid"] for p in stand.lab.pods(stand.space)}
    assert stand.perform(activation).verdict is Verdict.OK
    assert {p["metadata"]["uid"] for p in stand.lab.pods(stand.space)} == before


@pytest.mark.parametrize(
    ("asked", "reason", "words"),
    [
        ({"mode": "imagepull"}, "ImagePull", "ImagePullBackOff"),
        ({"mode": "configerror"}, "ContainerConfig", "secret not found"),
        (
            {"mode": "crashloop", "log": "ValueError: no such plugin\n"},
            "CrashLoop",
            "ValueError: no such plugin",
        ),
    ],
    ids=["image", "config", "crash"],
)
def test_a_pod_that_will_not_run_fails_the_restart_early(
    stand: Stand, asked: dict[str, str], reason: str, words: str
) -> None:
    """The message comes long before any deadline."""
    stand.install()
    stand.up()
    stand.change("scheduler", asked)
    outcome = stand.perform(stand.activation(), 15)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.problem is not None
    assert outcome.problem.reason == reason
    assert words in outcome.problem.message
    assert "scheduler" in outcome.problem.message


def test_a_crash_looping_pod_of_a_statefulset_is_healed_on_the_way_back(stand: Stand) -> None:
    """Its controller would wait for it for ever; it is deleted and starts again."""
    stand.install(Release(executor=CELERY, replicas={"worker": 2}))
    stand.up()
    stand.change("worker", {"mode": "crashloop", "log": "boom\n"})
    assert stand.perform(stand.activation(), 20).verdict is Verdict.FAILED
    stand.change("worker", {"mode": "ok"})
    back = replace(stand.activation(Step.RESTART_BACK), restarted_at=time.time() + 1)
    assert stand.perform(back).verdict is Verdict.OK
    stand.up()


def test_a_pod_that_begins_to_crash_ends_the_watch(stand: Stand) -> None:
    """The pools are restored by then; what the pod said last is told."""
    stand.install()
    stand.up()
    stand.driver = KubernetesDriver(stand.clusters, stand.root / "secrets", watch=600.0)
    activation = stand.activation()
    assert stand.perform(activation).verdict is Verdict.OK
    stand.change("scheduler", {"mode": "crashloop", "log": "ValueError: no such task\n"})
    for pod in stand.lab.pods(stand.space, "component=scheduler"):
        stand.lab.api.delete("pods", stand.space, pod["metadata"]["name"])
    watched = stand.perform(replace(activation, step=Step.WATCH), 60)
    assert watched.verdict is Verdict.FAILED
    assert watched.problem is not None
    assert watched.problem.reason == Reason.CRASH_LOOP
    assert "ValueError: no such task" in watched.problem.message


def test_pods_that_no_node_takes_are_waited_for_a_while(stand: Stand) -> None:
    """A cluster may grow; after a while the scheduler's message is reported."""
    stand.install()
    stand.up()
    container = {"name": "scheduler", "resources": {"requests": {"cpu": "1000"}}}
    stand.change("scheduler", {}, template={"spec": {"containers": [container]}})
    outcome = stand.perform(stand.activation(), 25)
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.UNSCHEDULABLE
    assert "Insufficient cpu" in outcome.problem.message


def test_a_container_beside_airflow_that_crashes_is_not_the_builds_fault(stand: Stand) -> None:
    """The DAGs' repo may soon be back; after a while git-sync's message is reported."""
    stand.install(Release(git_sync=True, groomers=False, persistence=False))
    stand.up()
    crash = {"mode": "crashloop", "crashing": "git-sync-init", "log": "no route to git\n"}
    stand.change("dag-processor", crash)
    cluster = stand.clusters.of("lab")
    cluster.limits = cluster.limits.model_copy(update={"schedule_timeout": 8.0})
    activation = stand.activation()
    outcome = stand.perform(activation, 25)
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.SIDECAR_CRASH_LOOP
    assert outcome.problem.reason.policy.blameless
    assert "git-sync-init" in outcome.problem.message
    assert "no route to git" in outcome.problem.message
    assert time.time() - activation.step_since > 3, "it is waited for"


def test_a_quota_is_told(stand: Stand) -> None:
    """The Deployment has the message, and the driver repeats it."""
    stand.install()
    stand.up()
    pods = len(stand.lab.pods(stand.space))
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": str(pods)}}}
    stand.lab.api.create("resourcequotas", stand.space, quota)
    wait_for(
        lambda: (
            (stand.lab.api.get("resourcequotas", stand.space, "q") or {})
            .get("status", {})
            .get("used", {})
            .get("pods")
            == str(pods)
        ),
        20,
        "the quota to count",
    )
    outcome = stand.perform(stand.activation(), 25)
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.QUOTA_EXCEEDED
    assert "exceeded quota: q" in outcome.problem.message


def test_a_progress_deadline_is_told(stand: Stand) -> None:
    """The Deployment's own limit may be shorter than the instance's."""
    stand.install()
    stand.up()
    stand.change("triggerer", {"mode": "notready"}, progressDeadlineSeconds=2)
    outcome = stand.perform(stand.activation(), 25)
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.PROGRESS_DEADLINE
    assert "airflow-triggerer" in outcome.problem.message


def test_a_rollout_that_never_ends_is_told_with_the_newest_warning(stand: Stand) -> None:
    """Its pods run and never become ready."""
    stand.install()
    stand.up()
    stand.change("triggerer", {"mode": "notready"})
    stand.instance = replace(stand.instance, probe_timeout=1.0)
    for kind in ("deployments",):
        for one in stand.lab.api.list(kind, stand.space):
            body = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
            stand.lab.api.patch(kind, stand.space, one["metadata"]["name"], body)
    outcome = stand.perform(stand.activation(), 30)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.problem is not None
    assert outcome.problem.reason == Reason.ROLLOUT_TIMEOUT
    assert "triggerer" in outcome.problem.message


@pytest.mark.parametrize(("version", "drained"), [("10.17.1", True), ("10.18.0", False)])
def test_tasks_in_pods_are_waited_for_where_a_new_scheduler_cannot_adopt_them(
    stand: Stand, version: str, *, drained: bool
) -> None:
    """One release of the provider ends the scheduler at each start until they have ended."""
    stand.install(Release(executor=KUBERNETES))
    stand.up()
    airflow = stand.airflow.state
    airflow.providers = {"apache-airflow-providers-cncf-kubernetes": version}
    airflow.busy, pools = 1, dict(airflow.pools)
    seen = stand.perform(stand.activation(Step.OBSERVE))
    assert dict(seen.pools or ()) == (pools if drained else {})
    activation = replace(stand.activation(Step.PAUSE), pools=seen.pools or ())
    assert stand.perform(activation).verdict is Verdict.OK
    assert set(airflow.pools.values()) == ({0} if drained else set(pools.values()))
    activation = replace(activation, step=Step.DRAIN)
    outcome = stand.driver.perform(Step.DRAIN, stand.instance, activation, time.time())
    assert outcome.verdict is (Verdict.NOT_YET if drained else Verdict.OK)
    airflow.busy = 0
    assert stand.perform(activation).verdict is Verdict.OK


def test_what_cannot_be_restarted_is_refused_before_anything_changes(
    stand: Stand, lab: Lab
) -> None:
    """A StatefulSet that waits until its pods are deleted, and a Role with too few rights."""
    stand.install(Release(executor=CELERY))
    body = {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}
    lab.api.patch("statefulsets", stand.space, "airflow-worker", body)
    with pytest.raises(Stalled) as caught:
        wait_for(lambda: stand.perform(stand.activation(Step.OBSERVE)) and None, 10, "refusal")
    assert caught.value.reason == Reason.NOT_RESTARTABLE
    assert "OnDelete" in caught.value.message

    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["apps"],
            "resources": ["deployments", "statefulsets"],
            "verbs": ["list", "watch"],
        },
    ]
    token = lab.account(stand.space, "small", {stand.space: rules})
    small = Clusters(
        KubernetesSettings.model_validate(
            {
                "kubeconfig": lab.plane.kubeconfig(stand.root / "small", token=token),
                "clusters": {"lab": {}},
            }
        )
    )
    driver = KubernetesDriver(small, stand.root / "secrets")
    body = {"spec": {"updateStrategy": {"type": "RollingUpdate"}}}
    lab.api.patch("statefulsets", stand.space, "airflow-worker", body)

    def refused() -> str:
        try:
            driver.perform(Step.OBSERVE, stand.instance, stand.activation(), time.time())
        except GroundcrewError as error:
            return error.reason if error.reason == Reason.FORBIDDEN else ""
        return ""

    wait_for(refused, 10, "Forbidden")
    small.close()


def test_the_base_is_the_image_of_the_running_pods(stand: Stand) -> None:
    """It is read by digest; the driver waits if there are several; a change wakes the daemon."""
    with pytest.raises(Retryable) as missing:
        stand.driver.base(stand.instance)
    assert missing.value.reason == Reason.RELEASE_MISSING
    stand.install()
    stand.up()
    wait_for(lambda: stand.driver.fingerprint(stand.instance), 10, "the fingerprint")
    image = stand.driver.base(stand.instance).image
    assert image is not None
    assert image.reference.startswith("apache/airflow@sha256:")
    assert (image.user, image.context) == (50000, "lab")
    mark = stand.driver.fingerprint(stand.instance)
    stand.woken.clear()
    newer = replace(stand.release, image="apache/airflow:3.1.9")
    part = [m for m in newer.manifests(stand.space) if m["metadata"]["name"] == "airflow-scheduler"]
    stand.lab.apply(part)
    stand.lab.rolled_out("deployments", stand.space, "airflow-scheduler")
    wait_for(lambda: stand.driver.fingerprint(stand.instance) != mark, 10, "mixed images")
    mixed_mark = stand.driver.fingerprint(stand.instance)
    assert stand.woken.is_set()
    with pytest.raises(Retryable) as mixed:
        stand.driver.base(stand.instance)
    assert mixed.value.reason == Reason.MIXED_IMAGES
    stand.install(newer)
    stand.up()
    seen = ("", mark, mixed_mark)
    wait_for(lambda: stand.driver.fingerprint(stand.instance) not in seen, 10, "a new mark")


def test_an_upgrade_is_seen_before_its_first_pod_runs(stand: Stand) -> None:
    """A pod with another image counts from its creation on, even while the image is pulled."""
    stand.install()
    stand.up()
    mark = wait_for(lambda: stand.driver.fingerprint(stand.instance), 10, "the fingerprint")
    stays = {"scheduler": {"lab/mode": "imagepull"}}
    newer = replace(stand.release, image="registry.test/none:1", annotations=stays)
    part = [m for m in newer.manifests(stand.space) if m["metadata"]["name"] == "airflow-scheduler"]
    stand.lab.apply(part)
    wait_for(lambda: stand.driver.fingerprint(stand.instance) != mark, 20, "the upgrade")
    with pytest.raises(Retryable) as mixed:
        stand.driver.base(stand.instance)
    assert mixed.value.reason == Reason.MIXED_IMAGES
    assert "registry.test/none:1" in mixed.value.message


def test_the_oldest_process_is_the_oldest_pod_even_a_tasks(stand: Stand) -> None:
    """The build that it loaded must stay; a finished pod or one without Airflow holds nothing."""
    parts = stand.release.manifests(stand.space)
    stand.lab.apply([part for part in parts if part["metadata"]["name"] == "airflow-statsd"])
    stand.lab.rolled_out("deployments", stand.space, "airflow-statsd")
    time.sleep(1.1)  # the API writes whole seconds
    account = {"metadata": {"name": "airflow-worker"}}
    stand.lab.api.create("serviceaccounts", stand.space, account)
    task = stand.release.task_pod(stand.space, "task-one", {"lab/mode": "ok"})
    stand.lab.api.create("pods", stand.space, task)
    time.sleep(1.1)
    stand.install()
    stand.up()
    stand.driver.fingerprint(stand.instance)  # starts the watch
    now = time.time()
    wait_for(lambda: stand.driver.oldest_process(stand.instance, now), 10, "the mirror")
    pod = stand.lab.api.get("pods", stand.space, "task-one")
    assert pod is not None
    oldest = stand.driver.oldest_process(stand.instance, now)
    assert oldest is not None
    assert (
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(oldest))
        == (pod["metadata"]["creationTimestamp"])
    )
    stand.lab.api.delete("pods", stand.space, "task-one", {"gracePeriodSeconds": 0})
    wait_for(
        lambda: (stand.driver.oldest_process(stand.instance, now) or 0) > oldest, 10, "a younger"
    )


def _component(pod: Json) -> str:
    return str(pod["metadata"]["labels"]["component"])
