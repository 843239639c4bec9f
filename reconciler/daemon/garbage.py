"""Garbage collection, with the builds to keep from records, pointers and running processes."""

from __future__ import annotations

import time

from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.events import EventKind, GarbageCollected
from reconciler.core.model import InstanceRecord, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.restarts import builds_in
from reconciler.core.world import REPO
from reconciler.daemon.effects import Report, problem_of
from reconciler.daemon.open_records import open_store
from reconciler.daemon.wiring import Wiring
from reconciler.settings import Settings
from reconciler.share.gc import Collected, Held, collect_garbage
from reconciler.share.logs import collect_logs

PAUSED = "gc-paused"  # name of the stored text that is "yes" while it is paused


def collect(wiring: Wiring, records: Records, now: float, *, dry_run: bool) -> Collected:
    """Remove what no instance may still load; with `dry_run`, only report it."""
    settings = wiring.settings.gc
    if not dry_run and paused(wiring):
        raise Stalled(
            Reason.GC_PAUSED, "garbage collection is paused; `groundcrew gc --resume` ends that"
        )
    if not dry_run and records.unreadable:
        raise Stalled(
            Reason.RECORD_UNREADABLE,
            f"nothing is collected while records cannot be read, as they may need it: "
            f"{', '.join(sorted(records.unreadable)[:5])}",
        )
    held = [
        Held(record.retired, _oldest_process(wiring, record, now), record.team, record.since)
        for record in records.instances.values()
    ]
    held += [Held((), now, team, at) for team, at in records.repo.removals]  # for the grace
    if not dry_run:
        collect_logs(wiring.share, records.builds, now, settings.grace)
    return collect_garbage(
        wiring.share,
        roots=roots(records, settings.keep),
        held=held,
        now=now,
        grace=settings.grace,
        dry_run=dry_run,
        sizes=wiring.sizes,
        go_on=lambda: not paused(wiring),
    )


def collect_and_measure(wiring: Wiring, records: Records) -> Report | None:
    """Collect garbage and measure the store; report what was done."""
    try:
        if paused(wiring):
            wiring.measure()
            return None
        done = collect(wiring, records, time.time(), dry_run=False)
        wiring.measure()
    except GroundcrewError as error:
        problem = problem_of(error)
        return Report(
            lambda draft: draft.event(
                EventKind.GARBAGE_FAILED, REPO, problem.message, reason=problem.reason
            )
        )
    message = f"{len(done.builds)} builds, {len(done.entries)} store entries, {done.bytes} bytes"
    payload = GarbageCollected(len(done.builds), done.bytes)
    return Report(
        lambda draft: draft.event(EventKind.GARBAGE_COLLECTED, REPO, message, payload),
        collect_again=not done.complete,
    )


def collect_now(settings: Settings, *, dry_run: bool) -> Collected:
    """Collect garbage outside the daemon."""
    wiring = Wiring(settings)
    try:
        return collect(wiring, wiring.store.load(), time.time(), dry_run=dry_run)
    finally:
        wiring.close()
        wiring.store.close()


def pause(settings: Settings, *, on: bool) -> None:
    """Pause garbage collection here and in the daemon, or resume it."""
    store = open_store(settings)
    try:
        store.name(PAUSED, "yes" if on else "no")
    finally:
        store.close()


def paused(wiring: Wiring) -> bool:
    """Return True if garbage collection is paused."""
    return wiring.store.named(PAUSED) == "yes"


def roots(records: Records, keep: int) -> set[str]:
    """Return builds to keep in any case: current, wanted, in progress, newest of environments."""
    builds: set[str] = set()
    for record in records.instances.values():
        builds.update(b for b in (record.current.build, record.previous.build) if b)
        builds |= builds_in(record.earlier)
        if record.activation is not None:
            builds.update(
                b for b in (record.activation.origin.build, record.activation.target.build) if b
            )
    newest: dict[str, int] = {}
    for build in sorted(records.builds.values(), key=lambda b: -b.created_at):
        if build.build_id is None:
            continue
        environment = records.environments.get(build.environment)
        wanted = (
            environment is not None and environment.definition.recipe.digest == build.recipe_digest
        )
        under_way = build.phase in (BuildPhase.BUILDING, BuildPhase.VERIFYING)
        newest[build.environment] = newest.get(build.environment, 0) + 1
        recent = environment is not None and newest[build.environment] <= keep
        if wanted or under_way or recent:
            builds.add(build.build_id)
    return builds


def _oldest_process(wiring: Wiring, record: InstanceRecord, now: float) -> float | None:
    try:
        return wiring.driver(record.definition).oldest_process(record.definition, now)
    except GroundcrewError:
        return None
