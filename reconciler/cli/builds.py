"""Commands `groundcrew builds` and `diff`, which show the builds in the records."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.options import SHORT, Output, SomeObject
from reconciler.cli.output import (
    Format,
    ago,
    document_of,
    print_document,
    print_table,
    problem_line,
    say,
    seconds_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.api import contract
    from reconciler.cli.sources.source import Source
    from reconciler.core.packages import Difference, Packages

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
    from reconciler.cli.sources.choice import opened

    with opened() as source:
        shown = _builds_of(source, object) if object else source.builds()
    if output is not Format.TABLE:
        print_document([document_of(build) for build in shown], output)
        return
    now = time.time()
    print_table(
        ["KEY", "BUILD", "ENVIRONMENT", "RUNTIME", "PHASE", "AGO", "REVISION", "INSTANCES"],
        [
            [
                build.key,
                build.build or "-",
                build.environment,
                build.runtime,
                str(build.phase),
                ago(seconds_of(build.created), now),
                build.revision[:SHORT],
                ", ".join(build.instances) or "-",
            ]
            for build in shown
        ],
    )
    for build in shown:
        if build.problem is not None:
            say(f"{build.key}: {problem_line(build.problem)}")


def diff(before: Which, after: Which, output: Output = Format.TABLE) -> None:
    """Show which packages differ between two builds."""
    from reconciler.cli.sources.choice import opened
    from reconciler.core.packages import difference

    with opened() as source:
        old, new = _meant(source, before), _meant(source, after)
    packages = _packages(new)
    differing = difference(_packages(old), packages)
    if output is not Format.TABLE:
        print_document(_document(old, new, differing), output)
        return
    rows = [
        *([name, "-", version] for name, version in differing.added.items()),
        *([name, version, "-"] for name, version in differing.removed.items()),
        *([name, was, now] for name, (was, now) in differing.changed.items()),
    ]
    if rows:
        print_table(["PACKAGE", old.build or old.key, new.build or new.key], sorted(rows))
    else:
        say(f"both have the same {len(packages)} packages")


def _packages(build: contract.BuildDetail) -> Packages:
    return {one.name: one.version for one in build.packages}


def _document(
    old: contract.BuildDetail, new: contract.BuildDetail, packages: Difference
) -> dict[str, object]:
    return {
        "before": old.build or old.key,
        "after": new.build or new.key,
        "added": dict(packages.added),
        "removed": dict(packages.removed),
        "changed": {name: [*versions] for name, versions in packages.changed.items()},
    }


def _builds_of(source: Source, said: str) -> list[contract.BuildDetail]:
    """Return the builds that belong to an object. Raises Misuse."""
    from reconciler.cli.objects import ENVIRONMENT, find

    status = source.status()
    kind, _, name = find(status, said).partition("/")
    if kind == ENVIRONMENT:
        return source.builds(environment=name)
    instance = next(one for one in status.instances if one.name == name)
    if instance.environment is None or instance.runtime is None:
        return []
    return source.builds(instance.environment, instance.runtime)


def _meant(source: Source, said: str) -> contract.BuildDetail:
    """Return the build that is meant. Raises Misuse."""
    from reconciler.cli.exit_codes import Misuse
    from reconciler.cli.objects import INSTANCE

    status = source.status()
    full = said if said.startswith(f"{INSTANCE}/") else f"{INSTANCE}/{said}"
    instance = next((one for one in status.instances if full == f"{INSTANCE}/{one.name}"), None)
    builds = source.builds()
    is_environment = any(said == one.name for one in status.environments)
    if instance is None or (is_environment and said == instance.name):
        return find_build(status, builds, said)
    for build in builds:
        if build.build is not None and build.build == instance.build:
            return build
    raise Misuse(
        f"{full} runs {instance.build or 'the bare base'}, of which there is no record; "
        f"`groundcrew builds` lists those that are known"
    )


def find_build(
    status: contract.Status, builds: Sequence[contract.BuildDetail], which: str
) -> contract.BuildDetail:
    """Return the build with that key or id, else the environment's newest. Raises Misuse.

    `builds` are the newest first.
    """
    from reconciler.cli.exit_codes import Misuse
    from reconciler.cli.objects import ENVIRONMENT, find

    for build in builds:
        if which in (build.key, build.build):
            return build
    name = find(status, which, (ENVIRONMENT,)).partition("/")[2]
    for build in builds:
        if build.environment == name:
            return build
    raise Misuse(f"environment {name} has no build yet; `groundcrew status` says what it waits on")
