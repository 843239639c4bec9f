"""An API server that refuses, hangs, cuts connections and forgets: nothing is lost or repeated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow.kubernetes.driver import KubernetesDriver
from reconciler.cluster import connection
from reconciler.cluster.clusters import Clusters
from reconciler.core.errors import Retryable
from reconciler.core.model import Activation, StepResult
from reconciler.core.phases import Verdict
from reconciler.settings import KubernetesSettings
from tests.fakes.releases import CELERY, Release
from tests.harness.fault_proxy import FaultProxy
from tests.harness.job_builder import JobBench
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab
from tests.harness.release_driver import Stand, rights, standing

FAULTS: dict[str, tuple[int | str, ...]] = {
    "refused": (409, 429, 500, 401),
    "hang": ("hang",),
    "cut": ("cut",),
    "lost": ("lost",),
}
PATIENCE = 300.0  # seconds; reaching it is an error, however slow the machine is


@pytest.fixture(autouse=True)
def _asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pause after a request that hung, as there are many faults here."""
    monkeypatch.setattr(connection, "DOWN", 0.5)


@pytest.fixture
def proxy(lab: Lab) -> Iterator[FaultProxy]:
    with FaultProxy(lab.plane) as proxy:
        yield proxy


@pytest.fixture
def stand(lab: Lab, tmp_path: Path, proxy: FaultProxy) -> Iterator[Stand]:
    """Yield a stand whose driver uses the proxy."""
    with standing(lab, tmp_path) as stand:
        user, token = rights(lab, [stand.space], stand.space)
        settings = KubernetesSettings.model_validate(
            {
                "kubeconfig": lab.plane.kubeconfig(
                    tmp_path / "proxied", token=token, url=proxy.url
                ),
                "clusters": {"lab": {"request_timeout": 2}},
            }
        )
        stand.clusters, stand.user = Clusters(settings), user
        stand.driver = KubernetesDriver(stand.clusters, tmp_path / "secrets")
        stand.instance = replace(stand.instance, probe_timeout=PATIENCE)
        stand.install(Release(executor=CELERY))
        stand.up()
        yield stand
        stand.clusters.close()


def perform(stand: Stand, activation: Activation) -> StepResult:
    """Perform the step once as the daemon does, with its retries."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return stand.driver.perform(activation.step, stand.instance, activation, time.time())
        except Retryable as error:
            if time.monotonic() > end:
                raise AssertionError("not in time") from error
            time.sleep(0.3)


def restart(stand: Stand, activation: Activation) -> None:
    """Perform the restart until it is done."""
    end = time.monotonic() + PATIENCE
    while True:
        outcome = perform(stand, activation)
        assert outcome.verdict is not Verdict.FAILED, outcome.problem
        if outcome.verdict is Verdict.OK:
            return
        assert time.monotonic() < end, outcome.problem


def generations(stand: Stand) -> dict[str, int]:
    """Return the number of changes of each workload's specification."""
    return {
        one["metadata"]["name"]: one["metadata"]["generation"]
        for kind in ("deployments", "statefulsets")
        for one in stand.lab.api.list(kind, stand.space)
        if one["metadata"]["labels"]["component"] in stand.release.components
    }


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_restart_gets_through(
    stand: Stand, proxy: FaultProxy, faults: tuple[int | str, ...]
) -> None:
    """After a fault at the first list, watch and patch of each kind, each workload changes once."""
    before = generations(stand)
    for fault in faults:
        for kind in ("deployments", "statefulsets"):
            proxy.spoil(fault, "GET", kind)
            proxy.spoil(fault, "watch", kind)
            proxy.spoil(fault, "PATCH", kind, times=2)
        proxy.spoil(fault, "GET", "pods")
    restart(stand, stand.activation())
    assert not [s for s in proxy.pending if s.method != "watch"]
    assert generations(stand) == {name: was + 1 for name, was in before.items()}


@pytest.mark.parametrize("fault", ["gone", "half"])
def test_a_watch_that_forgets_is_begun_anew(stand: Stand, proxy: FaultProxy, fault: str) -> None:
    """A 410 lists again; an event that is cut in the middle is seen by the next watch."""
    for kind in ("pods", "deployments", "statefulsets"):
        proxy.spoil(fault, "watch", kind, times=2)
    restart(stand, stand.activation())
    assert {f for _, _, f in proxy.done} == {fault}


def test_a_server_that_is_down_for_a_while(stand: Stand) -> None:
    """Its connections are cut in the middle of a rollout, and then it comes back."""
    stand.change("scheduler", {"ready-after": "8"})  # it takes several calls of the step
    activation = stand.activation()
    before = generations(stand)
    assert perform(stand, activation).verdict is Verdict.NOT_YET
    stand.lab.plane.restart_apiserver()
    restart(stand, activation)
    stand.up()
    assert generations(stand) == {name: was + 1 for name, was in before.items()}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_build_makes_one_job_of_each_kind(
    lab: Lab, tmp_path: Path, proxy: FaultProxy, faults: tuple[int | str, ...]
) -> None:
    """It is one, whatever happens to the answers."""
    with JobBench(lab, tmp_path) as bench:
        token = lab.plane.token_for(bench.user.split(":")[2], "groundcrew")
        lab.plane.kubeconfig(tmp_path / "kubeconfig", token=token, url=proxy.url)
        bench.clusters.close()
        bench.sessions.end("inspect")
        cluster = bench.clusters.of("lab")
        cluster.limits = cluster.limits.model_copy(update={"request_timeout": 2.0})
        for fault in faults:
            for method, part in (("POST", "jobs"), ("GET", "pods"), ("watch", "pods")):
                proxy.spoil(fault, method, part)
        own = bench.package("acme-own", {"acme_own.py": ""})
        job = bench.job()

        def built() -> bool:
            try:
                bench.build(bench.recipe(own), job)
            except Retryable:
                bench.builder.leave(job)
                return False
            return True

        wait_for(built, 90, "the build")
        bench.builder.leave(job)
        wait_for(lambda: not bench.jobs(), 30, "no Job to be left")
