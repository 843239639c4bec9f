"""Commands `groundcrew builds` and `diff`, which show the builds in the records."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.options import SHORT, Output, SomeObject
from reconciler.cli.output import (
    Format,
    ago,
    print_document,
    print_table,
    problem_line,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.model import BuildRecord, Records

Which = Annotated[
    str,
    typer.Argument(
        metavar="BUILD|OBJECT",
        help="Key or id of a build, an instance for its current one, or an environment for its "
        "newest.",
        autocompletion=completion.objects,
    ),
]


def builds(
    object: SomeObject = None,  # noqa: A002 - how the command's help names it
    output: Output = Format.TABLE,
) -> None:
    """Show builds, the newest first, and the instances that run them.

    Of an instance, these are the builds of its environment for its runtime.
    """
    from reconciler.api.documents import build_document
    from reconciler.daemon.open_records import current
    from reconciler.settings import Settings

    records = current(Settings())
    shown = _builds_of(records, object) if object else list(records.builds.values())
    users = _users(records)
    shown.sort(key=lambda build: (-build.created_at, build.key))
    if output is not Format.TABLE:
        print_document(
            [{**build_document(b), "instances": users.get(b.build_id or "", [])} for b in shown],
            output,
        )
        return
    now = time.time()
    print_table(
        ["KEY", "BUILD", "ENVIRONMENT", "RUNTIME", "PHASE", "AGO", "REVISION", "INSTANCES"],
        [
            [
                build.key,
                build.build_id or "-",
                build.environment,
                build.runtime_key,
                str(build.phase),
                ago(build.created_at, now),
                build.revision[:SHORT],
                ", ".join(users.get(build.build_id or "", [])) or "-",
            ]
            for build in shown
        ],
    )
    for build in shown:
        if build.problem is not None:
            say(f"{build.key}: {problem_line(build.problem)}")


def diff(before: Which, after: Which, output: Output = Format.TABLE) -> None:
    """Show which packages differ between two builds."""
    from reconciler.daemon.open_records import current
    from reconciler.settings import Settings

    records = current(Settings())
    old, new = _meant(records, before), _meant(records, after)
    versions = {
        name: (dict(old.packages).get(name), dict(new.packages).get(name))
        for name in sorted(dict(old.packages) | dict(new.packages))
    }
    if output is not Format.TABLE:
        print_document(_difference(old, new, versions), output)
        return
    rows = [[n, a or "-", b or "-"] for n, (a, b) in versions.items() if a != b]
    if rows:
        print_table(["PACKAGE", old.build_id or old.key, new.build_id or new.key], rows)
    else:
        say(f"both have the same {len(versions)} packages")


def _difference(
    old: BuildRecord, new: BuildRecord, versions: dict[str, tuple[str | None, str | None]]
) -> dict[str, object]:
    return {
        "before": old.build_id or old.key,
        "after": new.build_id or new.key,
        "added": {n: b for n, (a, b) in versions.items() if a is None},
        "removed": {n: a for n, (a, b) in versions.items() if b is None},
        "changed": {n: [a, b] for n, (a, b) in versions.items() if None not in (a, b) and a != b},
    }


def _users(records: Records) -> Mapping[str, list[str]]:
    """Return the instances that run each build, by its id."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for name, instance in sorted(records.instances.items()):
        if instance.current.build is not None:
            users[instance.current.build].append(name)
    return users


def _builds_of(records: Records, said: str) -> list[BuildRecord]:
    """Return the builds that belong to an object. Raises Misuse."""
    from reconciler.cli.objects import ENVIRONMENT, find
    from reconciler.core.world import owners_of

    kind, _, name = find(records, said).partition("/")
    if kind == ENVIRONMENT:
        return [build for build in records.builds.values() if build.environment == name]
    instance = records.instances[name]
    definitions = [record.definition for record in records.environments.values()]
    runtime = instance.runtime.key if instance.runtime is not None else ""
    mine = owners_of(definitions).get(name), runtime
    return [b for b in records.builds.values() if (b.environment, b.runtime_key) == mine]


def _meant(records: Records, said: str) -> BuildRecord:
    """Return the build that is meant. Raises Misuse."""
    from reconciler.cli.exit_codes import Misuse
    from reconciler.cli.logs import find_build
    from reconciler.cli.objects import INSTANCE, known

    names = known(records)
    full = next((name for name in (said, f"{INSTANCE}/{said}") if name in names), "")
    if not full.startswith(INSTANCE):
        return find_build(records, said)
    instance = records.instances[full.partition("/")[2]]
    for build in records.builds.values():
        if build.build_id is not None and build.build_id == instance.current.build:
            return build
    raise Misuse(
        f"{full} runs {instance.current.build or 'the bare base'}, of which there is no record; "
        f"`groundcrew builds` lists those that are known"
    )
