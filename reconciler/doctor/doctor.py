"""Selection of the checks for the current settings and definitions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial

from reconciler.airflow.rest import TIMEOUT
from reconciler.doctor import airflow, forge, messages, records, sandbox, share
from reconciler.doctor.findings import Check, Finding, off
from reconciler.doctor.repo import Known, Repo
from reconciler.doctor.runner import Task, examine
from reconciler.settings import Settings

OF_OBJECTS = (
    Check.SANDBOX,
    Check.INDEX,
    Check.KUBERNETES,
    Check.LOCAL,
    Check.AIRFLOW,
    Check.PROCESSES,
)
MARGIN = 15.0  # seconds in addition to a check's own time limit
REQUESTS = 10  # made by an Airflow check, each with its own time limit


def diagnose(
    settings: Settings,
    wanted: Collection[Check] = (),
    ended: Callable[[Task], None] = lambda _: None,
) -> list[Finding]:
    """Run the wanted checks, or all, and return their findings; `ended` is called for each check.

    Checks without definitions and the environments repo come first, then those of the definitions.
    """
    repo = Repo(settings)
    wanted = set(wanted) or set(Check)
    tasks = _own(settings)
    asks_objects = not wanted.isdisjoint(OF_OBJECTS)
    reading = Task(Check.GIT, repo.url, repo.look, 2 * settings.git.timeout + MARGIN)
    if Check.GIT in wanted or asks_objects:
        tasks.append(reading)
    findings = examine([t for t in tasks if t.check in _needing(wanted) or t is reading], ended)
    if asks_objects:
        repo.remember()
        findings += examine(_objects(settings, repo.known, wanted), ended)
        if not repo.known.instances:
            message = "no instance is defined yet, so there is nothing to check"
            mend = "define one in the environments repo; `groundcrew init DIR` shows how"
            findings.append(off(Check.AIRFLOW, "instances", message, mend))
    order = list(Check)
    findings = [f for f in findings if f.check in wanted]
    return sorted(findings, key=lambda f: order.index(f.check))


def _needing(wanted: Collection[Check]) -> set[Check]:
    """Return the wanted checks and those that they need: the share and database read the clocks."""
    more = {Check.SHARE, Check.DATABASE} if Check.CLOCK in wanted else set()
    return {*wanted} | more


def _own(settings: Settings) -> list[Task]:
    database = "database" if settings.database else settings.database_url
    tasks = [
        Task(Check.STATE, str(settings.state_dir), partial(records.look_state, settings)),
        Task(Check.SHARE, str(settings.share), _share(settings)),
        Task(Check.DATABASE, database, partial(records.look_database, settings)),
        Task(Check.FORGE, "commit_status", partial(forge.look, settings), 60.0),
    ]
    tasks += [
        Task(Check.NOTIFY, f"route {route.name}", partial(messages.look_route, settings, route))
        for route in settings.notify.routes
    ]
    return tasks


def _share(settings: Settings) -> Callable[[], Iterator[Finding]]:
    return partial(share.look, settings.share, partial(records.known_share_id, settings))


def _objects(settings: Settings, known: Known, wanted: Collection[Check]) -> list[Task]:
    """Return the checks of defined objects."""
    tasks = [
        Task(Check.INDEX, f"environment/{one.name}", partial(airflow.look_indexes, settings, one))
        for one in known.environments
    ]
    for one in known.instances:
        about = f"instance/{one.name}"
        look = partial(airflow.look_api, settings, one)
        tasks.append(Task(Check.AIRFLOW, about, look, REQUESTS * TIMEOUT + MARGIN))
        seen = partial(records.look_instance, settings, one.name)
        tasks.append(Task(Check.PROCESSES, about, seen))
        if one.local is not None:
            tasks.append(Task(Check.LOCAL, about, partial(airflow.look_local, settings, one)))
    if any(one.local is not None for one in known.instances):
        tasks.append(Task(Check.SANDBOX, "local builds", partial(sandbox.look, settings.builder)))
    if Check.KUBERNETES in wanted:
        tasks += _clusters(settings, known)
    return [task for task in tasks if task.check in wanted]


def _clusters(settings: Settings, known: Known) -> list[Task]:
    """Return the checks of clusters. The Kubernetes client is imported only if there are any."""
    from reconciler.cluster.clusters import Clusters
    from reconciler.doctor import kubernetes as k8s

    clusters = Clusters(settings.kubernetes)
    tasks = []
    for context, namespace, builds in k8s.spaces(settings, known.instances):
        rules, setting = (
            (k8s.BUILDS, "builds.namespace") if builds else (k8s.AIRFLOW, "airflowNamespaces")
        )
        cluster = clusters.of(context)
        look = partial(k8s.look_rights, cluster, namespace, rules, setting)
        about = f"{cluster.context}/{namespace}"
        seconds = 2 * cluster.limits.request_timeout + MARGIN
        tasks.append(Task(Check.KUBERNETES, about, look, seconds))
        if settings.kubernetes.verify_dags and not builds:
            look = partial(k8s.look_dag_rights, cluster, namespace)
            tasks.append(Task(Check.KUBERNETES, about, look, seconds))
    for one in known.instances:
        if one.kubernetes is not None:
            cluster = clusters.of(one.kubernetes.context)
            release = partial(k8s.look_release, cluster, settings, one)
            seconds = 2 * cluster.limits.request_timeout + MARGIN
            tasks.append(Task(Check.KUBERNETES, f"instance/{one.name}", release, seconds))
    return tasks
