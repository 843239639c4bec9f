"""Restarted pods prove by their loaders' words what they have loaded, not by their templates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow.kubernetes import proofs
from reconciler.airflow.kubernetes.driver import KubernetesDriver
from reconciler.cluster.clusters import Clusters
from reconciler.core.errors import Stalled
from reconciler.core.model import BARE, Activation, StepResult
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.settings import KubernetesSettings
from tests.fakes.releases import Release
from tests.harness.kube_api import wait_for
from tests.harness.laboratory import Lab
from tests.harness.release_driver import Stand, standing

BUILD = "b" * 16


@pytest.fixture
def stand(lab: Lab, tmp_path: Path) -> Iterator[Stand]:
    with standing(lab, tmp_path) as stand:
        yield stand


def restarted(stand: Stand) -> Activation:
    """Return an activation that has restarted every pod and probes now."""
    stand.up()
    activation = stand.activation()
    assert stand.perform(activation).verdict is Verdict.OK
    for component in stand.release.components:
        stand.airflow.answer("POST", f"/_fake/restart/{component}", {}, b"{}")
    return replace(activation, step=Step.PROBE, step_since=time.time())


def look(stand: Stand, activation: Activation) -> StepResult:
    """One look at an activation's step."""
    return stand.driver.perform(activation.step, stand.instance, activation, time.time())


def problem(stand: Stand, activation: Activation) -> tuple[str, str]:
    """Reason and message of an activation's step that fails."""
    result = stand.perform(activation)
    assert result.verdict is Verdict.FAILED
    assert result.problem is not None
    assert result.problem.reason.policy.blameless
    return result.problem.reason, result.problem.message


def test_pods_with_a_proof_pass_whatever_their_templates_say(stand: Stand) -> None:
    """PYTHONPATH of the template, of an image that brings it, or a pin that somebody set."""
    stand.install()
    assert stand.perform(restarted(stand)).verdict is Verdict.OK
    baked = ({"name": "PYTHONPATH", "value": "/opt/company/loader"},)
    stand.proofs["scheduler"] = {"build": "c" * 16, "pinned": True}
    stand.install(replace(stand.release, env=baked))
    assert stand.perform(stand.activation(Step.OBSERVE)).verdict is Verdict.OK
    assert stand.perform(restarted(stand)).verdict is Verdict.OK


def test_a_pod_without_a_proof_is_waited_for_and_then_fails(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named with what to do; on the way back, and with the bare base, no proof is asked for."""
    stand.install(connected=False)
    activation = restarted(stand)
    waiting = look(stand, activation)
    assert waiting.verdict is Verdict.NOT_YET
    assert waiting.problem is not None
    assert waiting.problem.reason == Reason.LOADER_MISSING
    monkeypatch.setattr(proofs, "DUE", 0.0)
    reason, message = problem(stand, activation)
    assert reason == "LoaderMissing"
    assert "scheduler (pod airflow-scheduler-" in message
    assert "groundcrew airflow-values red-dev" in message
    back = replace(activation, step=Step.PROBE_BACK)
    assert stand.perform(back).verdict is Verdict.OK
    assert stand.perform(replace(activation, target=BARE)).verdict is Verdict.OK


def test_without_any_proof_it_ends_at_the_limit_for_probing(stand: Stand) -> None:
    """The reason stays, so that the build is not to blame."""
    stand.install(connected=False)
    late = replace(restarted(stand), step_since=time.time() - 30)
    reason, message = problem(stand, late)
    assert reason == "LoaderMissing"
    assert message.startswith("not healthy within 20 s: started without the loader")


def test_next_activation_stops_before_anything_is_touched(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods that started beside a loader that leaves proofs, and left none, would do so again."""
    monkeypatch.setattr(proofs, "DUE", 0.0)
    monkeypatch.setattr(proofs, "SKEW", 0.0)
    installed: list[float | None] = [None]
    stand.driver = KubernetesDriver(
        stand.clusters, stand.root / "secrets", loader_since=lambda _: installed[0]
    )
    stand.install(connected=False)
    stand.up()
    asked = stand.activation(Step.OBSERVE)
    assert stand.perform(asked).verdict is Verdict.OK, "there is no loader yet"
    installed[0] = time.time() + 60
    assert stand.perform(asked).verdict is Verdict.OK, "they started before there was one"
    installed[0] = 1.0
    before = {p["metadata"]["uid"] for p in stand.lab.pods(stand.space)}
    with pytest.raises(Stalled) as caught:
        stand.perform(asked)
    assert caught.value.reason == Reason.LOADER_MISSING
    assert {p["metadata"]["uid"] for p in stand.lab.pods(stand.space)} == before
    stand.install(replace(stand.release, env=()))
    stand.up()

    def observed() -> bool:
        try:
            return stand.perform(asked).verdict is Verdict.OK
        except Stalled:
            return False

    wait_for(observed, 20, "the loader to be seen")


@pytest.mark.parametrize(
    ("told", "reason", "words"),
    [
        (
            {"build": "none", "said": "the bare base, because: OSError: stale"},
            "LoaderFellBack",
            "instead of build bbbbbbbbbbbbbbbb: the bare base, because: OSError: stale",
        ),
        ({"build": "none"}, "LoaderFellBack", "the pointer that it read names no build"),
        ({"build": "c" * 16}, "OtherBuildLoaded", "build cccccccccccccccc instead of build bbbb"),
    ],
)
def test_a_pod_that_runs_something_else_fails_with_its_words(
    stand: Stand, told: dict[str, str], reason: str, words: str
) -> None:
    """However healthy Airflow is."""
    stand.proofs["triggerer"] = told
    stand.install()
    outcome = problem(stand, restarted(stand))
    assert outcome[0] == reason
    assert words in outcome[1]
    assert "triggerer (pod airflow-triggerer-" in outcome[1]


def test_nothing_is_held_against_pods_of_which_nothing_is_known(
    stand: Stand, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beginning of a log is gone, or the daemon may not read logs."""
    monkeypatch.setattr(proofs, "DUE", 0.0)
    for component in stand.release.components:
        stand.change(component, {"log": "said an hour after the start\n"})
    stand.install(connected=False)
    activation = restarted(stand)
    assert look(stand, activation).verdict is Verdict.FAILED
    with monkeypatch.context() as earlier:
        earlier.setattr(proofs, "started", lambda pod: time.time() - 3600)
        assert stand.perform(activation).verdict is Verdict.OK
    blind = _without_logs(stand, lab)
    stand.driver = KubernetesDriver(blind, stand.root / "secrets")
    assert stand.perform(activation).verdict is Verdict.OK
    blind.close()


def _without_logs(stand: Stand, lab: Lab) -> Clusters:
    """Clusters for an account that may list and watch, and no more."""
    resources = {"": ["pods", "events"], "apps": ["deployments", "statefulsets"]}
    rules = [
        {"apiGroups": [group], "resources": names, "verbs": ["list", "watch", "patch"]}
        for group, names in resources.items()
    ]
    meta = {"name": "blind", "namespace": stand.space}
    subject = {"kind": "ServiceAccount", **meta}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "blind"}
    lab.apply(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": meta,
                "rules": rules,
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "subjects": [subject],
                "roleRef": ref,
            },
        ]
    )
    token = lab.plane.token_for(stand.space, "blind")
    return Clusters(
        KubernetesSettings.model_validate(
            {
                "kubeconfig": lab.plane.kubeconfig(stand.root / "blind", token=token),
                "clusters": {"lab": {}},
            }
        )
    )


def test_the_log_of_a_container_is_read_no_more_once_it_is_proven(stand: Stand) -> None:
    """One request for each start of a container."""
    stand.install()
    activation = restarted(stand)
    assert stand.perform(activation).verdict is Verdict.OK
    asked = _logs_asked(stand)
    assert asked >= len(stand.instance.load_into) - 1
    assert stand.perform(activation).verdict is Verdict.OK
    assert _logs_asked(stand) == asked


def _logs_asked(stand: Stand) -> int:
    events = stand.lab.plane.audit(stand.user)
    return sum((e.get("objectRef") or {}).get("subresource") == "log" for e in events)


def test_releases_of_celery_prove_their_workers(stand: Stand) -> None:
    """Each pod of a set counts."""
    stand.proofs["worker"] = {"build": "none"}
    stand.install(Release(executor="CeleryExecutor", groomers=False, grace=1))
    reason, message = problem(stand, restarted(stand))
    assert reason == "LoaderFellBack"
    assert "airflow-worker-0" in message
