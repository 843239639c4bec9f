"""`groundcrew doctor` on a real API server: rights, releases, and a cluster that is down."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler.cluster.clusters import Clusters
from reconciler.core.definitions import Api, Instance, KubernetesTarget, Place
from reconciler.core.reasons import Reason
from reconciler.doctor import records, share
from reconciler.doctor.doctor import diagnose
from reconciler.doctor.findings import Check, Finding, Level
from reconciler.doctor.kubernetes import (
    AIRFLOW,
    BUILDS,
    DAGS,
    NO_SURGE,
    look_dag_rights,
    look_release,
    look_rights,
    spaces,
)
from reconciler.doctor.runner import Task, examine
from reconciler.settings import KubernetesSettings, Settings
from tests.fakes.releases import Release
from tests.harness.cluster_daemon import KubeSite
from tests.harness.laboratory import Lab
from tests.harness.release_driver import Stand, standing
from tests.kubernetes.test_chart import GRANTED


def settings_of(stand: Stand, **more: Any) -> Settings:
    """Return settings of the stand's daemon."""
    kubernetes = {"kubeconfig": stand.root / "kubeconfig", "clusters": {"lab": {}}, **more}
    return Settings(
        share=stand.root / "share",
        secrets_dir=stand.root / "secrets",
        kubernetes=KubernetesSettings.model_validate(kubernetes),
    )


def reasons(found: list[Finding]) -> list[tuple[str, str]]:
    assert all(f.mend for f in found if f.level not in (Level.OK, Level.OFF))
    return [(str(f.level), f.reason) for f in found]


def test_the_rights_asked_for_are_those_of_the_chart() -> None:
    """Compare verb by verb; another test keeps the chart's rights equal to the daemon's use."""
    assert {key: set(verbs) for key, verbs in AIRFLOW.items()} == GRANTED["airflow"]
    assert {key: set(verbs) for key, verbs in DAGS.items()} == GRANTED["dags"]
    assert {key: set(verbs) for key, verbs in BUILDS.items()} == GRANTED["builds"]


def test_the_charts_account_has_all_rights_and_no_more_is_asked(lab: Lab, tmp_path: Path) -> None:
    """Its rights suffice in both kinds of namespace; elsewhere each missing verb is named."""
    with standing(lab, tmp_path) as stand:
        cluster = stand.clusters.of("lab")
        for rules, setting in ((AIRFLOW, "airflowNamespaces"), (BUILDS, "builds.namespace")):
            findings = list(look_rights(cluster, stand.space, rules, setting))
            assert reasons(findings) == [("ok", "Good")]
        assert reasons(list(look_dag_rights(cluster, stand.space))) == [("ok", "Good")]
        other = lab.namespace("other")
        (found_there,) = look_rights(cluster, other, AIRFLOW, "airflowNamespaces")
        assert (found_there.level, found_there.reason) == (Level.WRONG, Reason.RIGHTS_MISSING)
        assert "list, watch, delete pods;" in found_there.message
        assert "list, watch, patch statefulsets.apps" in found_there.message
        assert other in found_there.mend
        (unseen,) = look_dag_rights(cluster, other)  # builds go on without it
        assert (unseen.level, unseen.reason) == (Level.WARNING, Reason.RIGHTS_MISSING)
        assert unseen.message.endswith("may not: create, get, list, delete jobs.batch")
        assert "verifyDags" in unseen.mend
        lab.drop(other)


def test_one_verb_that_is_missing_is_named(lab: Lab, tmp_path: Path) -> None:
    """The Role lacks `patch deployments`, which a restart needs."""
    home, space = lab.namespace("home"), lab.namespace("airflow")
    rules = [
        {
            "apiGroups": [group],
            "resources": ["/".join(p for p in (kind, sub) if p)],
            "verbs": [v for v in verbs if (kind, v) != ("deployments", "patch")],
        }
        for (group, kind, sub), verbs in AIRFLOW.items()
    ]
    token = lab.account(home, "poor", {space: rules})
    with standing(lab, tmp_path) as stand:
        stand.root.joinpath("kubeconfig").unlink()
        lab.plane.kubeconfig(stand.root / "kubeconfig", token=token)
        findings = list(look_rights(stand.clusters.of("lab"), space, AIRFLOW, "airflowNamespaces"))
    assert [f.message for f in findings] == ["the daemon may not: patch deployments.apps"]
    lab.drop(home, space)


def test_a_release_that_is_missing_or_not_connected(lab: Lab, tmp_path: Path) -> None:
    """First a wrong name is reported, then a share that is not mounted, then a missing loader."""
    with standing(lab, tmp_path) as stand:
        cluster, settings = stand.clusters.of("lab"), settings_of(stand)
        stand.install(connected=False)
        findings = list(look_release(cluster, settings, stand.instance))
        assert reasons(findings) == [("warning", "ShareNotMounted"), ("warning", "LoaderNotSet")]
        assert "scheduler" in findings[0].message
        assert "groundcrew airflow-values red-dev" in findings[0].mend
        elsewhere = Instance(
            "red-dev",
            "red",
            Place("instances/red-dev.yaml", 1),
            Api("http://a"),
            kubernetes=KubernetesTarget(stand.space, "airflwo", "lab"),
        )
        findings = list(look_release(cluster, settings, elsewhere))
        assert reasons(findings) == [("wrong", "ReleaseMissing")]
        assert f"there are {stand.release.name}" in findings[0].message
        mounted = Release(
            groomers=False,
            persistence=False,
            volumes=({"name": "groundcrew", "emptyDir": {}},),
            mounts=({"name": "groundcrew", "mountPath": str(settings.share)},),
        )
        stand.install(mounted, connected=False)
        findings = list(look_release(cluster, settings, stand.instance))
        assert reasons(findings) == [("warning", "LoaderNotSet")]
        path = {"name": "PYTHONPATH", "value": "/elsewhere/instances/red-dev/loader"}
        stand.install(replace(mounted, env=(path,)))
        findings = list(look_release(cluster, settings, stand.instance))
        assert reasons(findings) == [("warning", "LoaderNotSet")]


def test_components_that_are_away_while_they_restart_are_named(lab: Lab, tmp_path: Path) -> None:
    """A StatefulSet always is; a Deployment only by its strategy."""
    with standing(lab, tmp_path) as stand:
        cluster, settings = stand.clusters.of("lab"), settings_of(stand)
        loader = f"{settings.share}/instances/red-dev/loader"
        release = Release(
            groomers=False,
            volumes=({"name": "groundcrew", "emptyDir": {}},),
            mounts=({"name": "groundcrew", "mountPath": str(settings.share)},),
            env=({"name": "PYTHONPATH", "value": loader},),
        )
        stand.install(release)

        def messages() -> list[str]:
            findings = list(look_release(cluster, settings, stand.instance))
            assert {finding.level for finding in findings} == {Level.OK}
            return [finding.message for finding in findings]

        loads, gap = messages()
        assert loads.startswith(f"release {release.name} loads in api-server")
        assert gap == f"triggerer: the pod ends before the new one starts: {NO_SURGE}"
        for strategy, why in (
            ({"type": "Recreate", "rollingUpdate": None}, "its strategy is Recreate"),
            ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}, "`maxSurge: 0`"),
        ):
            body = {"spec": {"strategy": strategy}}
            stand.lab.api.patch("deployments", stand.space, f"{release.name}-scheduler", body)
            (told,) = (m for m in messages() if m.startswith("scheduler: "))
            assert why in told


def rights(stand: Stand) -> list[tuple[str, str]]:
    """Return the messages on rights in the stand's namespace, from a separate connection."""
    clusters = Clusters(settings_of(stand).kubernetes)
    look = partial(look_rights, clusters.of("lab"), stand.space, AIRFLOW, "airflowNamespaces")
    findings = examine([Task(Check.KUBERNETES, "lab", look)])
    clusters.close()
    return reasons(findings)


def test_a_cluster_that_is_away_or_refuses(lab: Lab, tmp_path: Path) -> None:
    """Unreachable, refused, or with an unknown context: each message says what to do."""
    with standing(lab, tmp_path) as stand:
        config = stand.root / "kubeconfig"
        lab.plane.kubeconfig(config, url="https://127.0.0.1:9")
        assert rights(stand) == [("unreachable", "ClusterUnreachable")]
        lab.plane.kubeconfig(config, token="nobodys-token")
        assert rights(stand) == [("wrong", "ClusterDenied")]
        lab.plane.kubeconfig(config, context="elsewhere")
        assert rights(stand) == [("wrong", "ContextUnknown")]


def test_every_namespace_is_looked_at_once() -> None:
    """Two instances in one namespace, one in another cluster, and the builds of each."""
    location = Place("i.yaml", 1)
    instances = [
        Instance(n, "red", location, Api("http://a"), kubernetes=KubernetesTarget(s, n, c))
        for n, s, c in (("a", "one", None), ("b", "one", None), ("c", "two", "far"))
    ]
    assert spaces(Settings(), instances) == [
        (None, "groundcrew-builds", True),
        (None, "one", False),
        ("far", "groundcrew-builds", True),
        ("far", "two", False),
    ]
    assert spaces(Settings(), []) == []


def test_a_whole_site_is_sound(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected as the chart's values say: rights, release, share, loader and Airflow are ok."""
    with KubeSite(lab, tmp_path, played=True) as site:
        site.instance("red-dev", "red", Release())
        site.environment("red", "red-dev", version="1.0")
        document = site.repo / "instances" / "red-dev.yaml"
        document.write_text(
            document.read_text().replace("kubernetes:\n", "kubernetes:\n    context: lab\n")
        )
        site.commit()
        site.grant()
        monkeypatch.setenv("GROUNDCREW_CONFIG", str(site.settings()))
        for module in (records, share):  # how full this machine's disk is does not matter
            monkeypatch.setattr(module, "space", lambda *_: [])
        findings = diagnose(Settings())
    assert {f.level for f in findings} <= {Level.OK, Level.OFF}, findings
    space = site.places["red-dev"].namespace
    looked = {f.object for f in findings if f.check is Check.KUBERNETES}
    assert looked == {f"lab/{space}", f"lab/{site.builds}", "instance/red-dev"}
