"""Cluster events about a restart, as text."""

from __future__ import annotations

import re
from collections.abc import Collection

from reconciler.airflow.kubernetes.release import seconds
from reconciler.cluster.cluster import Cluster
from reconciler.cluster.connection import Json
from reconciler.core.errors import GroundcrewError
from reconciler.core.model import Problem
from reconciler.core.reasons import Reason

POD = re.compile(r"[Cc]reate Pod (\S+) in StatefulSet")


def newest(cluster: Cluster, namespace: str, about: Collection[Json], since: float) -> str:
    """Return the newest warning since then about one of the objects, or ""."""
    uids = {resource["metadata"]["uid"] for resource in about}
    own = [
        event
        for event in _list(cluster, namespace, "type=Warning")
        if event["involvedObject"].get("uid") in uids and _last(event) >= int(since)
    ]
    if not own:
        return ""
    event = max(own, key=_last)
    return f"{event['involvedObject']['name']}: {event.get('reason')}: {_said(event)}"


def refused(
    cluster: Cluster, workload: Json, pods: Collection[Json], since: float
) -> Problem | None:
    """Return why a StatefulSet lacks a pod; its status never says so.

    Call it only once it has been waiting for a while: a quota counts an ended pod for a moment, and
    the event of an earlier restart is counted again if the same happens again.
    """
    meta = workload["metadata"]
    fields = f"involvedObject.uid={meta['uid']},reason=FailedCreate"
    present = {pod["metadata"]["name"] for pod in pods}
    for event in _list(cluster, meta["namespace"], fields):
        named, said = POD.search(str(event.get("message", ""))), _said(event)
        missing = named is not None and named[1] not in present
        if missing and _last(event) >= int(since):
            quota = "exceeded quota" in said
            return Problem(
                Reason.QUOTA_EXCEEDED if quota else Reason.PODS_REFUSED, f"{meta['name']}: {said}"
            )
    return None


def _list(cluster: Cluster, namespace: str, fields: str) -> list[Json]:
    try:
        return cluster.list("events", namespace, fields=fields)
    except GroundcrewError:
        return []  # they are only explanations


def _last(event: Json) -> float:
    """Return when an event was last seen; some reporters set only `eventTime`."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(seconds(at) for at in times)


def _said(event: Json) -> str:
    return " ".join(str(event.get("message", "")).split())[:400]
