"""Command `groundcrew why`, which shows where a package comes from and what requires it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Exit
from reconciler.cli.options import Output
from reconciler.cli.output import Format, print_document, print_table, warn

if TYPE_CHECKING:
    from reconciler.api import contract
    from reconciler.cli.sources.sbom import Sbom
    from reconciler.cli.sources.source import Source

DEFINITION = "the definition"
NAMED = 8  # packages that a row of the table names


@dataclass(frozen=True, slots=True)
class Origin:
    """Package in one environment on one runtime: from its build or from the base.

    `required_by` are the packages that require it; `chain` leads from the definition to it. Both
    are empty if the build does not say.
    """

    environment: str
    runtime: str
    build: str
    package: str
    version: str
    source: str
    required_by: tuple[str, ...]
    chain: tuple[str, ...]


def why(
    package: Annotated[str, typer.Argument(metavar="PACKAGE")],
    environment: Annotated[
        str | None,
        typer.Argument(
            metavar="ENVIRONMENT",
            help="Only in this environment; if absent, all.",
            autocompletion=completion.environments,
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show where a package comes from, and what requires it; exit 1 if nothing has it.

    A package of the base was there before; its requirers are those of the base and of the build.
    """
    from packaging.utils import canonicalize_name

    from reconciler.cli.sources.choice import opened

    name = canonicalize_name(package)
    with opened() as source:
        origins = list(_origins(source, name, environment))
    if output is not Format.TABLE:
        print_document([asdict(one) for one in origins], output)
    elif origins:
        print_table(
            ["ENVIRONMENT", "RUNTIME", "VERSION", "FROM", "REQUIRED BY", "CHAIN"],
            [_row(one) for one in origins],
        )
    if not origins:
        where = f"environment {environment}" if environment else "no environment"
        warn(f"{where} has {'no ' if environment else ''}{name}, and its base neither")
        raise typer.Exit(Exit.WRONG)


def _row(origin: Origin) -> list[str]:
    more = len(origin.required_by) - NAMED
    named = ", ".join(origin.required_by[:NAMED]) + (f" and {more} more" if more > 0 else "")
    chain = " > ".join(origin.chain)
    return [
        origin.environment,
        origin.runtime,
        origin.version,
        origin.source,
        named or "not known",
        chain or "-",
    ]


def _origins(source: Source, name: str, said: str | None) -> Iterator[Origin]:
    """Yield the origins of a package. Raises Misuse if there is no such environment."""
    from reconciler.cli.objects import ENVIRONMENT, find

    status = source.status()
    chosen = find(status, said, (ENVIRONMENT,)).partition("/")[2] if said else None
    runtimes = source.runtimes().runtimes
    for environment in status.environments:
        if chosen not in (None, environment.name):
            continue
        for build in environment.builds:
            base = runtimes[build.runtime].base if build.runtime in runtimes else []
            origin = _origin(source, name, environment.name, build, base)
            if origin is not None:
                yield origin


def _origin(
    source: Source,
    name: str,
    environment: str,
    build: contract.Build,
    base: Sequence[contract.Distribution],
) -> Origin | None:
    """Return the origin of a package in a build, or None if neither it nor the base has it."""
    from packaging.utils import canonicalize_name

    versions = {one.name: one.version for one in build.packages}
    in_base = {str(canonicalize_name(one.name)): one.version for one in base}
    if build.build is None or (name not in versions and name not in in_base):
        return None
    sbom = _sbom(source, build)
    required = sbom.required if sbom is not None else {}
    requirers = {one for one, names in required.items() if name in names}
    if sbom is not None and name in sbom.requested:
        requirers.add(DEFINITION)
    requirers |= {one.name for one in base if name in _names(one.requires)}
    chain = _chain(name, sbom.requested, required) if sbom is not None else ()
    return Origin(
        environment,
        build.runtime,
        build.build,
        name,
        versions.get(name) or in_base[name],
        "build" if name in versions else "base",
        tuple(sorted(requirers, key=lambda one: (one != DEFINITION, one))),
        (DEFINITION, *chain) if chain else (),
    )


def _sbom(source: Source, build: contract.Build) -> Sbom | None:
    """Return what a build's SBOM says about requirements, or None if it says nothing."""
    from reconciler.cli.sources.sbom import read_sbom
    from reconciler.core.errors import Stalled

    try:
        data = source.sbom(build)
    except Stalled:  # it is gone from the share
        return None
    return read_sbom(data)


def _names(lines: Sequence[str]) -> set[str]:
    """Return the packages that requirements of a base name, except those of extras."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    names: set[str] = set()
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or "extra" not in str(requirement.marker):
            names.add(canonicalize_name(requirement.name))
    return names


def _chain(
    name: str, requested: Sequence[str], required: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Return a shortest way from a requested package to this one; empty if there is none."""
    ways: dict[str, tuple[str, ...]] = {one: (one,) for one in requested}
    queue = deque(requested)
    while queue and name not in ways:
        current = queue.popleft()
        for following in required.get(current, ()):
            if following not in ways:
                ways[following] = (*ways[current], following)
                queue.append(following)
    return ways.get(name, ())
