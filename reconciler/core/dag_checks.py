"""DAGs that were parsed with a build before the switch, for the history and as messages.

It is called after a verification, and by `status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.core.events import DagsChecked, EventKind
from reconciler.core.model import BuildRecord, DagCheck
from reconciler.core.world import Draft

Checks = Mapping[tuple[str, str | None], DagCheck]  # by instance and build id

NAMES = 3  # number of DAG files that a message names


def tell_dags(draft: Draft, build: BuildRecord, check: DagCheck) -> None:
    """Add to an instance's history which of its DAGs were parsed with a build."""
    kind = EventKind.DAGS_PARSED if check.seen > 0 else EventKind.DAGS_NOT_SEEN
    subject = (f"instance/{check.instance}", build.team)
    payload = DagsChecked(
        build.build_id or "",
        check.source,
        check.seen,
        check.failing,
        check.unjudged,
        check.unseen,
        check.mark,
    )
    draft.event(kind, subject, dag_words(check), payload, revision=build.revision)


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


def _verified_at(build: BuildRecord) -> tuple[float, str]:
    return build.phases[-1][1] if build.phases else build.created_at, build.key
