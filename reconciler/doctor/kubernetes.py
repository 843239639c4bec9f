"""Checks of the daemon's permissions in each cluster, and of each release's share and loader.

`AIRFLOW`, `DAGS` and `BUILDS` are the rules of the chart, which are in
deploy/helm/groundcrew/templates/_rules.tpl; a test keeps them equal. The server itself is asked
about each verb.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from reconciler.airflow.kubernetes.loader import loaderless
from reconciler.airflow.kubernetes.release import KINDS, TIER, component_of, labels_of
from reconciler.cluster.cluster import Cluster
from reconciler.cluster.connection import Json
from reconciler.core.definitions import IN_CLUSTER, Instance
from reconciler.core.reasons import Reason
from reconciler.doctor.findings import Check, Finding, Level, good
from reconciler.settings import Settings

Rules = Mapping[tuple[str, str, str], tuple[str, ...]]
"""Verbs by (API group, resource, subresource)."""

AIRFLOW: Rules = {
    ("", "pods", ""): ("list", "watch", "delete"),
    ("", "pods", "log"): ("get",),
    ("", "events", ""): ("list",),
    ("apps", "deployments", ""): ("list", "watch", "patch"),
    ("apps", "statefulsets", ""): ("list", "watch", "patch"),
}
DAGS: Rules = {("batch", "jobs", ""): ("create", "get", "list", "delete")}
BUILDS: Rules = {
    ("batch", "jobs", ""): ("create", "get", "list", "delete"),
    ("", "pods", ""): ("list", "watch"),
    ("", "pods", "log"): ("get",),
    ("", "events", ""): ("list",),
}


NO_SURGE = "it is a StatefulSet; without persistence the Airflow chart makes it a Deployment"


def look_rights(cluster: Cluster, namespace: str, rules: Rules, setting: str) -> Iterator[Finding]:
    """Check every verb of `rules` in a namespace; `setting` is the chart's value that grants it."""
    about, missing = f"{cluster.context}/{namespace}", _missing(cluster, namespace, rules)
    if not missing:
        count = sum(len(verbs) for verbs in rules.values())
        yield good(Check.KUBERNETES, about, f"the daemon has its {count} rights there")
        return
    yield Finding(
        Check.KUBERNETES,
        about,
        Level.WRONG,
        Reason.RIGHTS_MISSING,
        f"the daemon may not: {missing}",
        f"list {namespace} in the chart's {setting} and upgrade the release of Groundcrew, or "
        f"grant what deploy/manifests/03-access.yaml grants",
    )


def look_dag_rights(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    """Check the rights to parse DAGs in a release's namespace; without them builds go on."""
    about, missing = f"{cluster.context}/{namespace}", _missing(cluster, namespace, DAGS)
    if not missing:
        yield good(Check.KUBERNETES, about, "the daemon may parse DAGs there before a switch")
        return
    yield Finding(
        Check.KUBERNETES,
        about,
        Level.WARNING,
        Reason.RIGHTS_MISSING,
        f"DAGs are not parsed before a switch: the daemon may not: {missing}",
        f"set verifyDags in the chart, list {namespace} in its airflowNamespaces and upgrade the "
        f"release of Groundcrew; or set kubernetes.verify_dags to false",
    )


def _missing(cluster: Cluster, namespace: str, rules: Rules) -> str:
    """Return the verbs of `rules` that the daemon may not use in a namespace, or ""."""
    missing: dict[str, list[str]] = {}
    for (group, resource, sub), verbs in rules.items():
        name = "/".join(part for part in (resource, sub) if part)
        for verb in verbs:
            if not cluster.may(namespace, verb, group, resource, sub):
                missing.setdefault(f"{name}.{group}" if group else name, []).append(verb)
    return "; ".join(f"{', '.join(verbs)} {name}" for name, verbs in missing.items())


def look_release(cluster: Cluster, settings: Settings, instance: Instance) -> Iterator[Finding]:
    """Check that the release exists and that components that load builds have share and loader."""
    target = instance.kubernetes
    assert target is not None, "asked of instances on Kubernetes only"
    about = f"instance/{instance.name}"
    if not all(cluster.may(target.namespace, "list", "apps", kind) for kind in KINDS):
        return  # reported by look_rights
    labels = f"{TIER},release={target.release}"
    by_kind = {kind: cluster.list(kind, target.namespace, labels) for kind in KINDS}
    workloads = [w for kind in KINDS for w in by_kind[kind]]
    loading = [w for w in workloads if component_of(w) in instance.load_into]
    if not loading:
        known = {
            labels_of(w).get("release", "")
            for kind in KINDS
            for w in cluster.list(kind, target.namespace, TIER)
        }
        there = f"; there are {', '.join(sorted(known))}" if known else ""
        yield Finding(
            Check.KUBERNETES,
            about,
            Level.WRONG,
            Reason.RELEASE_MISSING,
            f"namespace {target.namespace} has no Deployment or StatefulSet of the release "
            f"{target.release} that loads builds (labels {labels}){there}",
            f"mend spec.kubernetes or spec.loadInto in {instance.place}, or install the release",
        )
        return
    troubles = list(_connected(about, loading, settings, instance))
    yield from troubles
    if not troubles:
        names = ", ".join(sorted(component_of(w) for w in loading))
        yield good(Check.KUBERNETES, about, f"release {target.release} loads in {names}")
        for why, components in _with_gap(by_kind, instance).items():
            message = (
                f"{', '.join(sorted(components))}: the pod ends before the new one starts: {why}"
            )
            yield good(Check.KUBERNETES, about, message)


def _with_gap(by_kind: Mapping[str, Iterable[Json]], instance: Instance) -> dict[str, set[str]]:
    """Return the components that are away for a moment when they are restarted, by the reason.

    A Deployment that may have one pod more starts the new one first; that is the chart's default.
    """
    gaps: dict[str, set[str]] = {}
    for kind, workloads in by_kind.items():
        for workload in workloads:
            why = NO_SURGE if kind == "statefulsets" else _no_surge(workload["spec"])
            if why and component_of(workload) in instance.load_into:
                gaps.setdefault(why, set()).add(component_of(workload))
    return gaps


def _no_surge(spec: Json) -> str:
    """Return why a Deployment's old pod ends before the new one has started, or ""."""
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return "its strategy is Recreate; RollingUpdate starts the new one first"
    if (strategy.get("rollingUpdate") or {}).get("maxSurge") in (0, "0%"):
        return "its strategy has `maxSurge: 0`; with 1 the new one starts first"
    return ""


def _connected(
    about: str, loading: Iterable[Json], settings: Settings, instance: Instance
) -> Iterator[Finding]:
    share = str(settings.share)
    loader = f"{share}/instances/{instance.name}/loader"
    unmounted, unset = set[str](), set[str]()
    for workload in loading:
        component = component_of(workload)
        containers = workload["spec"]["template"]["spec"].get("containers") or []
        mounts = {m.get("mountPath") for c in containers for m in c.get("volumeMounts") or []}
        if share not in mounts:
            unmounted.add(component)
        if loaderless(workload, instance.name, share):
            unset.add(component)
    mend = f"upgrade the release with what `groundcrew airflow-values {instance.name}` prints"
    if unmounted:
        yield Finding(
            Check.KUBERNETES,
            about,
            Level.WARNING,
            Reason.SHARE_NOT_MOUNTED,
            f"nothing is mounted at {share} in {', '.join(sorted(unmounted))}",
            mend,
        )
    if unset:  # a hint: an image may bring it, and an activation asks the pods for a proof
        words = f"the pod templates do not set PYTHONPATH to {loader} in {', '.join(sorted(unset))}"
        yield Finding(
            Check.KUBERNETES,
            about,
            Level.WARNING,
            Reason.LOADER_NOT_SET,
            f"{words}; unless its image does, no build is loaded there",
            mend,
        )


def spaces(settings: Settings, instances: Iterable[Instance]) -> list[tuple[str | None, str, bool]]:
    """Return (context, namespace, is it for builds) of every namespace that the daemon works in."""
    targets = [i.kubernetes for i in instances if i.kubernetes is not None]
    contexts = {t.context for t in targets}
    contexts |= {c for c in settings.kubernetes.clusters if c != IN_CLUSTER}
    namespaces = {(t.context, t.namespace, False) for t in targets}
    namespaces |= {(c, settings.kubernetes.jobs.namespace, True) for c in contexts}
    return sorted(namespaces, key=lambda one: (one[0] or "", one[1], one[2]))
