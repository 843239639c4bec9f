"""Stable documents of the HTTP API and of `-o json`: records as JSON-compatible values.

Times are ISO 8601 in UTC, or null; durations are seconds. Keys may be added, and are never renamed
or removed within `/api/v1`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING

from reconciler.core.definitions import Finding
from reconciler.core.event_codec import data_of
from reconciler.core.events import Event, PhaseEnded, Timing, part_of, seconds_of
from reconciler.core.formatting import iso
from reconciler.core.model import (
    BuildRecord,
    DagCheck,
    InstanceRecord,
    Problem,
    Records,
    Request,
    Suspension,
)
from reconciler.core.runtime import Runtime
from reconciler.core.status import Condition, EnvironmentStatus, InstanceStatus, Status

if TYPE_CHECKING:
    from reconciler.share.file_list import Listed

Document = dict[str, object]


def moment(at: float) -> str | None:
    """Return seconds since the epoch as ISO 8601 with milliseconds; 0 means no time."""
    return iso(at) if at else None


def status_document(status: Status) -> Document:
    """Return the document of `status`: the accepted revision, its problem, and all objects."""
    return {
        "revision": status.revision,
        "problem": problem_document(status.problem),
        "held": status.held.message if status.held is not None else None,
        "environments": [environment_document(e) for e in status.environments],
        "instances": [instance_document(i) for i in status.instances],
        "findings": [finding_document(f) for f in status.findings],
    }


def finding_document(finding: Finding) -> Document:
    """Return a mistake in the environments repo; `line`, `column` count from 1, 0 means unknown."""
    return {
        "file": finding.place.file,
        "line": finding.place.line,
        "column": finding.place.column,
        "object": finding.object,
        "reason": finding.reason,
        "message": finding.message,
    }


def event_document(event: Event) -> Document:
    """Return an event; `phases` maps each phase to its seconds, `seconds` is their sum."""
    return {
        "id": event.id,
        "at": moment(event.at),
        "kind": str(event.kind),
        "object": event.object,
        "team": event.team,
        "reason": event.reason_name,
        "message": event.message,
        "revision": event.revision,
        "seconds": _rounded(seconds_of(event.payload)),
        "phases": event_phases(event),
        "data": data_of(event),
    }


def _rounded(seconds: float | None) -> float | None:
    return round(float(seconds), 3) if seconds is not None else None


def event_phases(event: Event) -> dict[str, float]:
    """Return the seconds of each phase in the event, in order."""
    match event.payload:
        case PhaseEnded(phase, seconds) if seconds is not None:
            return {phase: round(float(seconds), 3)}
    timing = part_of(event.payload, Timing)
    return {name: round(s, 3) for name, s in timing.phases.items()} if timing is not None else {}


def environment_document(environment: EnvironmentStatus) -> Document:
    """Return one environment of `status`."""
    return {
        "name": environment.name,
        "team": environment.team,
        "file": environment.file,
        "revision": environment.revision,
        "recipe": environment.recipe_digest,
        "sync": str(environment.sync),
        "health": str(environment.health),
        "state": str(environment.state),
        "reason": environment.reason,
        "message": environment.message,
        "wrong": environment.is_wrong,
        "suspended": environment.suspended,
        "suspension": _suspension(environment.suspension),
        "instances": list(environment.instances),
        "builds": [_build(b) for b in environment.builds],
        "conditions": [_condition(c) for c in environment.conditions],
    }


def instance_document(instance: InstanceStatus) -> Document:
    """Return one instance of `status`."""
    return {
        "name": instance.name,
        "team": instance.team,
        "environment": instance.environment,
        "runtime": instance.runtime,
        "build": instance.build,
        "wanted": instance.wanted,
        "activating": instance.activation is not None,
        "pools": dict(instance.activation.pools) if instance.activation is not None else {},
        "earlier_builds": {name: list(builds) for name, builds in instance.earlier},
        "phase": instance.phase,
        "since": moment(instance.since),
        "sync": str(instance.sync),
        "health": str(instance.health),
        "state": str(instance.state),
        "reason": instance.reason,
        "message": instance.message,
        "wrong": instance.is_wrong,
        "notable": instance.is_notable,
        "suspended": instance.suspended,
        "suspension": _suspension(instance.suspension),
        "waits_for": str(instance.wait.on) if instance.wait and instance.wait.on else None,
        "waits_on": instance.waits_on,
        "rollback": {"build": instance.back.build or None, "refused": instance.back.refused},
        "quarantined": list(instance.quarantined),
        "revision": instance.revision,
        "conditions": [_condition(c) for c in instance.conditions],
        "dags": _dags(instance.dags),
    }


def _suspension(suspension: Suspension | None) -> Document | None:
    if suspension is None:
        return None
    return {
        "who": suspension.who,
        "reason": suspension.reason,
        "until": moment(suspension.until),
    }


def _dags(check: DagCheck | None) -> Document | None:
    if check is None:
        return None
    return {
        "source": check.source,
        "seen": check.seen,
        "names": list(check.names),
        "failing": list(check.failing),
        "unjudged": [{"file": file, "why": why} for file, why in check.unjudged],
        "unseen": check.unseen,
    }


def _build(build: BuildRecord) -> Document:
    return {
        "key": build.key,
        "build": build.build_id,
        "runtime": build.runtime_key,
        "phase": str(build.phase),
        "revision": build.revision,
        "created": moment(build.created_at),
        "attempts": build.attempts,
        "packages": [{"name": n, "version": v} for n, v in build.packages],
        "problem": problem_document(build.problem),
    }


def build_document(build: BuildRecord) -> Document:
    """Return one build: as in `status`, with its owner and the seconds of each phase."""
    return {
        **_build(build),
        "environment": build.environment,
        "team": build.team,
        "recipe": build.recipe_digest,
        "phases": build_phases(build),
    }


def builds_document(
    builds: Iterable[BuildRecord], instances: Mapping[str, InstanceRecord]
) -> list[Document]:
    """Return builds, the newest first, with the instances on which each is current."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for name, instance in sorted(instances.items()):
        if instance.current.build is not None:
            users[instance.current.build].append(name)
    newest_first = sorted(builds, key=lambda build: (-build.created_at, build.key))
    return [
        {**build_document(build), "instances": users.get(build.build_id or "", [])}
        for build in newest_first
    ]


def build_phases(build: BuildRecord) -> dict[str, float]:
    """Return the seconds of each finished phase, in order; repeated phases add up."""
    spent: dict[str, float] = {}
    for (name, begun), (_, ended) in pairwise(build.phases):
        spent[name] = round(spent.get(name, 0.0) + max(0.0, ended - begun), 3)
    return spent


def runtimes_document(records: Records) -> Document:
    """Return the contents of the instances' bases, without the daemon's own paths and images.

    `groundcrew plan --base` reads it where no daemon runs. It contains no secrets.
    """
    runtimes = {i.name: i.runtime for i in records.instances.values() if i.runtime is not None}
    return {
        "apiVersion": "groundcrew/v1",
        "kind": "Runtimes",
        "runtimes": {r.key: _runtime(r) for r in runtimes.values()},
        "instances": {name: runtime.key for name, runtime in sorted(runtimes.items())},
    }


def _runtime(runtime: Runtime) -> Document:
    document = asdict(runtime)
    del document["python"], document["image"]
    return document


def files_document(package: str | None, found: Listed) -> Document:
    """Return some files of a build."""
    return {
        "package": package,
        "where": found.where,
        "total": found.total,
        "bytes": found.bytes,
        "files": [{"path": path, "bytes": size} for path, size in found.files],
    }


def request_document(request: Request) -> Document:
    """Return an operator's request that is waiting to be carried out."""
    return {
        "id": request.id,
        "at": moment(request.at),
        "who": request.who,
        "verb": str(request.verb),
        "target": request.target,
        "reason": request.options.reason,
        "until": moment(request.options.until),
        "now": request.options.now,
    }


def _condition(condition: Condition) -> Document:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "revision": condition.revision,
        "at": moment(condition.at),
    }


def problem_document(problem: Problem | None) -> Document | None:
    """Return a problem, or None without one."""
    if problem is None:
        return None
    return {
        "reason": problem.reason,
        "message": problem.message,
        "place": str(problem.place) if problem.place else None,
    }
