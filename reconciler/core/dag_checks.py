"""DAGs that were parsed with a build before the switch, for the history and as messages.

It is called after a verification, and by `status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.core.model import BuildRecord, DagCheck
from reconciler.core.world import Draft

Checks = Mapping[tuple[str, str | None], DagCheck]  # by instance and build id

NAMES = 3  # number of DAG files that a message names


def tell_dags(draft: Draft, build: BuildRecord, check: DagCheck) -> None:
    """Add to an instance's history which of its DAGs were parsed with a build."""
    parsed = check.seen > 0
    kind = "DagsParsed" if parsed else "DagsNotSeen"
    subject = (f"instance/{check.instance}", build.team)
    data: dict[str, object] = {
        "build": build.build_id or "",
        "source": check.source,
        "seen": check.seen,
        "failing": list(check.failing),
        "unjudged": [list(pair) for pair in check.unjudged],
        "unseen": check.unseen,
        "mark": check.mark,
    }
    draft.event(kind, subject, dag_words(check), revision=build.revision, data=data)


def dag_words(check: DagCheck) -> str:
    """Return a text about the DAGs that were parsed before the switch, and those that were not."""
    parts = []
    if check.seen:
        names = ", ".join(check.names[:NAMES])
        more = f" and {check.seen - NAMES} more" if check.seen > NAMES else ""
        parts.append(f"{check.seen} DAG files parsed from {check.source}: {names}{more}")
    if check.failing:
        parts.append(f"failing already: {', '.join(check.failing[:NAMES])}")
    if check.unjudged:
        named = ", ".join(f"{file} ({why})" for file, why in check.unjudged[:NAMES])
        parts.append(f"not judged: {named}")
    if check.unseen:
        parts.append(f"not seen: {check.unseen}")
    return "; ".join(parts)


def checks_of(builds: Iterable[BuildRecord]) -> Checks:
    """Return the newest check of the DAGs of each instance with each build."""
    checks: dict[tuple[str, str | None], DagCheck] = {}
    for build in sorted((b for b in builds if b.dags), key=_verified_at):
        checks.update({(check.instance, build.build_id): check for check in build.dags})
    return checks


def _verified_at(build: BuildRecord) -> float:
    return build.phases[-1][1] if build.phases else build.created_at
