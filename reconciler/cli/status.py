"""Command `groundcrew status`, which shows how all objects are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.exit_codes import Exit
from reconciler.cli.filters import Filter
from reconciler.cli.options import SHORT, Output, SomeObject
from reconciler.cli.output import (
    Format,
    ago,
    finding_line,
    print_document,
    print_table,
    say,
)

if TYPE_CHECKING:
    from reconciler.core.model import Records
    from reconciler.core.status import EnvironmentStatus, InstanceStatus, Status
    from reconciler.settings import Settings


def status(
    object: SomeObject = None,  # noqa: A002 - how the command's help names it
    output: Output = Format.TABLE,
    team: Annotated[str, typer.Option(help="Only objects of this team.")] = "",
    health: Annotated[str, typer.Option(help="Only objects in this health, as Degraded.")] = "",
    sync: Annotated[str, typer.Option(help="Only objects in this sync, as OutOfSync.")] = "",
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit 1 unless every object shown is Synced and Healthy."),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "-w",
            "--watch",
            help="Keep running and show changes; with --check, until everything is healthy.",
        ),
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.2, help="Seconds between two updates of --watch.")
    ] = 2.0,
) -> None:
    """Show the status of every instance and environment, or of some.

    An environment is shown with its instances, an instance with its environment.
    With --watch each change is a document of its own; as JSON, a line.
    """
    from reconciler.api.documents import status_document
    from reconciler.core.model import Records
    from reconciler.core.statuses import status as read
    from reconciler.daemon.open_records import current
    from reconciler.settings import Settings

    settings = Settings()
    wanted = Filter.of(object or "", team, health, sync)
    records = Records()

    def look(now: float) -> Status:
        nonlocal records
        records = current(settings)
        return wanted.applied(read(None, records, now), records)

    def show(shown: Status, now: float) -> None:
        _show_unconfined(settings, records)
        _show_status(shown, now)

    if watch:
        from reconciler.cli.watch import watch as go_on

        go_on(
            look,
            show,
            output,
            interval,
            lambda found: check and _all_well(found),
        )
        return
    now = time.time()
    snapshot = look(now)
    if output is not Format.TABLE:
        print_document(status_document(snapshot), output)
    else:
        show(snapshot, now)
    if check and not _all_well(snapshot):
        raise typer.Exit(Exit.WRONG)


def _show_unconfined(settings: Settings, records: Records) -> None:
    """Warn if nothing confines the builds for local instances, as far as that can be read."""
    from reconciler.core.errors import Retryable
    from reconciler.daemon.open_records import unconfined_builds

    try:
        reason = unconfined_builds(settings, records)
    except Retryable:  # the status could be read, and is worth more than this line
        return
    if reason:
        say(f"builds for local instances are not confined: {reason}")


def _all_well(found: Status) -> bool:
    from reconciler.core.phases import Health, Sync

    objects: list[InstanceStatus | EnvironmentStatus] = [*found.instances, *found.environments]
    good = all(
        o.sync is Sync.SYNCED and o.health is Health.HEALTHY and not o.is_wrong for o in objects
    )
    return good and found.problem is None and not found.findings


def _show_status(found: Status, now: float) -> None:
    say(f"revision {found.revision[:SHORT] or 'none yet'}")
    print_table(
        ["INSTANCE", "TEAM", "BUILD", "SYNC", "HEALTH", "PHASE", "SINCE", "WAITS ON"],
        [_instance_row(i, now) for i in found.instances],
    )
    say("")
    print_table(
        ["ENVIRONMENT", "TEAM", "REVISION", "SYNC", "HEALTH", "BUILDS", "INSTANCES"],
        [_environment_row(e) for e in found.environments],
    )
    problems = _problems(found)
    if problems:
        say("")
    for problem in problems:
        say(problem)


def _instance_row(instance: InstanceStatus, now: float) -> list[str]:
    quarantined = f"quarantined: {', '.join(instance.quarantined)}" if instance.quarantined else ""
    return [
        instance.name,
        instance.team,
        instance.build or "base",
        str(instance.sync),
        str(instance.health),
        instance.phase or "-",
        ago(instance.since, now),
        "; ".join(note for note in (instance.waits_on, quarantined) if note),
    ]


def _environment_row(environment: EnvironmentStatus) -> list[str]:
    return [
        environment.name,
        environment.team,
        environment.revision[:SHORT],
        str(environment.sync),
        str(environment.health),
        ", ".join(f"{b.key} {b.phase}" for b in environment.builds) or "-",
        ", ".join(environment.instances) or "-",
    ]


def _problems(found: Status) -> list[str]:
    """Return what is wrong: the repo, each object once, mistakes in the repo.

    And which DAGs were parsed before the switch.
    """
    from reconciler.core.dag_checks import dag_words
    from reconciler.core.states import OF_BUILDS, State

    lines = []
    if found.problem is not None:
        lines.append(f"repo: [{found.problem.reason}] {found.problem.message}")
    lines += [
        f"environment/{e.name}: [{e.reason}] {e.message}"
        for e in found.environments
        if e.state is State.INVALID or (e.is_wrong and e.state in OF_BUILDS)
    ]
    lines += [
        f"instance/{i.name}: [{i.reason}] {i.message}"
        for i in found.instances
        if i.is_notable and i.state not in OF_BUILDS  # those are told of the environment
    ]
    lines += [
        f"instance/{i.name}: DAGs: {dag_words(i.dags)}"
        for i in found.instances
        if i.dags is not None
    ]
    lines += map(finding_line, found.findings)
    return lines
