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
    document_of,
    print_document,
    print_table,
    reported_line,
    say,
    seconds_of,
    warn,
)

if TYPE_CHECKING:
    from reconciler.api import contract
    from reconciler.cli.sources.source import Source
    from reconciler.core.model import DagCheck


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
    from reconciler.cli.sources.choice import opened

    wanted = Filter.of(object or "", team, health, sync)
    with opened() as source:

        def look() -> contract.Status:
            return wanted.applied(source.status())

        def show(shown: contract.Status, now: float) -> None:
            _show_system(source, shown)
            _show_status(shown, now)

        if watch:
            from reconciler.cli.watch import watch as go_on

            go_on(look, show, output, interval, lambda shown: check and _all_well(shown))
            return
        snapshot = look()
        if output is not Format.TABLE:
            print_document(document_of(snapshot), output)
        else:
            show(snapshot, time.time())
    if check and not _all_well(snapshot):
        raise typer.Exit(Exit.WRONG)


def _show_system(source: Source, shown: contract.Status) -> None:
    """Warn if no daemon runs, or if nothing confines its builds for local instances."""
    from reconciler.core.errors import Retryable

    try:
        system = source.system()
    except Retryable:  # the status could be read, and is worth more than this line
        return
    if system.leader is None and shown.revision:
        warn("no daemon is running: this is what the last one recorded")
    if system.unconfined:
        say(f"builds for local instances are not confined: {system.unconfined}")


def _all_well(shown: contract.Status) -> bool:
    from reconciler.core.phases import Health, Sync

    objects: list[contract.Instance | contract.Environment] = [
        *shown.instances,
        *shown.environments,
    ]
    good = all(
        o.sync is Sync.SYNCED and o.health is Health.HEALTHY and not o.wrong for o in objects
    )
    return good and shown.problem is None and not shown.findings


def _show_status(found: contract.Status, now: float) -> None:
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


def _instance_row(instance: contract.Instance, now: float) -> list[str]:
    said = instance.suspension.reason if instance.suspension is not None else ""
    waits = instance.waits_on or (f"suspended: {said}" if said else "")
    quarantined = f"quarantined: {', '.join(instance.quarantined)}" if instance.quarantined else ""
    return [
        instance.name,
        instance.team,
        instance.build or "base",
        str(instance.sync),
        str(instance.health),
        instance.phase or "-",
        ago(seconds_of(instance.since), now),
        "; ".join(note for note in (waits, quarantined) if note),
    ]


def _environment_row(environment: contract.Environment) -> list[str]:
    return [
        environment.name,
        environment.team,
        environment.revision[:SHORT],
        str(environment.sync),
        str(environment.health),
        ", ".join(f"{b.key} {b.phase}" for b in environment.builds) or "-",
        ", ".join(environment.instances) or "-",
    ]


def _problems(found: contract.Status) -> list[str]:
    """Return what is wrong: the repo, each object once, mistakes in the repo.

    And which DAGs were parsed before the switch, and which components kept running.
    """
    from reconciler.core.dag_checks import dag_words
    from reconciler.core.restarts import earlier_words
    from reconciler.core.states import OF_BUILDS, State

    lines = []
    if found.problem is not None:
        lines.append(f"repo: [{found.problem.reason}] {found.problem.message}")
    lines += [
        f"environment/{e.name}: [{e.reason}] {e.message}"
        for e in found.environments
        if e.state is State.INVALID or (e.wrong and e.state in OF_BUILDS)
    ]
    lines += [
        f"instance/{i.name}: [{i.reason}] {i.message}"
        for i in found.instances
        if i.notable and i.state not in OF_BUILDS  # those are told of the environment
    ]
    lines += [
        f"instance/{i.name}: DAGs: {dag_words(_check(i.name, i.dags))}"
        for i in found.instances
        if i.dags is not None
    ]
    lines += [
        f"instance/{i.name}: {earlier_words(i.earlier_builds)}"
        for i in found.instances
        if i.earlier_builds
    ]
    lines += map(reported_line, found.findings)
    return lines


def _check(instance: str, dags: contract.Dags) -> DagCheck:
    from reconciler.core.model import DagCheck

    return DagCheck(
        instance,
        source=dags.source,
        seen=dags.seen,
        names=tuple(dags.names),
        failing=tuple(dags.failing),
        unjudged=tuple((dag.file, dag.why) for dag in dags.unjudged),
        unseen=dags.unseen,
    )
