"""Commands `build`, `export` and `venv`: the daemon's work in a checkout, before it is pushed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.checkout.formats import LockFormat
from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.options import Output
from reconciler.cli.output import (
    Format,
    finding_line,
    plain,
    print_document,
    print_table,
    problem_line,
    say,
    warn,
)
from reconciler.cli.progress import working

if TYPE_CHECKING:
    from reconciler.cli.checkout.bases import Base, Bases
    from reconciler.cli.checkout.maker import Maker, Outcome
    from reconciler.cli.preview.revisions import Side
    from reconciler.core.definitions import Environment

CheckoutPath = Annotated[
    Path, typer.Option("--path", help="Checkout of the environments repo, as it is now.")
]
Pythons = Annotated[
    list[str],
    typer.Option(
        "--python", help="Interpreter of an Airflow on this machine to build for; may be repeated."
    ),
]
Sources = Annotated[
    str,
    typer.Option(
        "--runtimes",
        help="A daemon's address, or a file or address with what `groundcrew runtimes` prints: "
        "the bases of the instances are copied from an index, once.",
    ),
]
For = Annotated[
    str, typer.Option("--instance", help="Instance whose base counts, if there are several.")
]


def build(
    environments: Annotated[
        list[str], typer.Argument(metavar="ENVIRONMENT", help="Default: all.")
    ] = [],  # noqa: B006 - typer reads it as the default and copies it
    path: CheckoutPath = Path(),
    python: Pythons = [],  # noqa: B006
    runtimes: Sources = "",
    output: Output = Format.TABLE,
    log: Annotated[
        bool, typer.Option("--log", help="Print what builds with a problem say.")
    ] = False,
) -> None:
    """Resolve, build and verify environments of a checkout as the daemon does, before a push.

    It needs no daemon and no share, and changes nothing but a cache. It exits 1 if an environment
    has a problem, and 3 if not everything could be determined.
    """
    with _workshop(path, python, runtimes) as shop:
        outcomes = list(_built(shop, [shop.environment(name) for name in environments]))
    if output is Format.TABLE:
        _show(outcomes, log=log)
    else:
        print_document([_document(outcome) for outcome in outcomes], output)
    if any(outcome.problem is not None for outcome in outcomes):
        raise typer.Exit(Exit.WRONG)
    if any(outcome.unknown for outcome in outcomes):
        raise typer.Exit(Exit.UNREACHABLE)


def export(
    environment: Annotated[str, typer.Argument(metavar="ENVIRONMENT")],
    path: CheckoutPath = Path(),
    python: Pythons = [],  # noqa: B006
    runtimes: Sources = "",
    instance: For = "",
    output: Annotated[
        LockFormat,
        typer.Option(
            "-o",
            "--output",
            help="requirements: for pip, with the base's packages; uv: a pyproject.toml for `uv "
            "sync`; pylock: only what the environment adds.",
        ),
    ] = LockFormat.REQUIREMENTS,
) -> None:
    """Print what an environment and its base have, for a laptop or an IDE.

    Paths in it are relative to the root of the checkout.
    """
    from reconciler.cli.checkout.locks import lock_text

    with _workshop(path, python, runtimes) as shop:
        defined = shop.environment(environment)
        base = shop.base(defined, instance)
        with working("resolving"):
            lock = shop.maker.lock(defined, base)
        sys.stdout.write(lock_text(output, defined, base.runtime, lock))


def venv(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create.")],
    environment: Annotated[str, typer.Argument(metavar="ENVIRONMENT")],
    path: CheckoutPath = Path(),
    python: Pythons = [],  # noqa: B006
    runtimes: Sources = "",
    instance: For = "",
) -> None:
    """Create a virtual environment with what an instance has: its base and its environment.

    An IDE and tests then see the same packages as the DAGs do. In-repo packages are installed as
    they are now; run it again after a change.
    """
    from reconciler.cli.checkout.bases import Unavailable, install, make_venv, pins

    if directory.exists():
        raise Misuse(f"{directory} is there already; give a new directory or remove it")
    with _workshop(path, python, runtimes) as shop:
        defined = shop.environment(environment)
        base = shop.base(defined, instance)
        try:
            with working("resolving") as tell:
                lock = shop.maker.lock(defined, base)
                tell("building wheels")
                wheels = shop.maker.wheels(defined, base, lock)
                tell("installing the base's packages")
                make_venv(directory, base.runtime.python)
                install(directory, pins(base.runtime), shop.index)
                tell("installing the environment's packages")
                install(directory, [str(wheel) for wheel in wheels], None)
        except Unavailable as error:
            warn(f"{directory} could not be made: {error}")
            raise typer.Exit(Exit.WRONG) from error
    say(f"{directory} has {len(base.runtime.base)} packages of the base and {len(wheels)} more")


@dataclass(frozen=True, slots=True)
class Workshop:
    """A checkout, the bases to build for, what builds it, and the index of bases ("": uv's)."""

    side: Side
    bases: Bases
    maker: Maker
    index: str

    def environment(self, name: str) -> Environment:
        """Return an environment of the checkout. Raises Misuse with suggestions."""
        from reconciler.cli.objects import ENVIRONMENT, choose

        environments = self.side.definitions.environments
        full = choose([f"{ENVIRONMENT}/{one}" for one in sorted(environments)], name, ENVIRONMENT)
        return environments[full.partition("/")[2]]

    def base(self, environment: Environment, instance: str) -> Base:
        """Return the base of an environment, or of one of its instances. Raises Misuse."""
        bases = self.bases.of(environment)
        fitting = [base for base in bases if not instance or instance in base.instances]
        if not fitting:
            names = ", ".join(name for base in bases for name in base.instances)
            raise Misuse(
                f"environment {environment.name} has no instance {instance}; it has {names}"
            )
        if len(fitting) > 1:
            names = " or ".join(base.instances[0] for base in fitting)
            raise Misuse(
                f"the instances of {environment.name} have {len(fitting)} different bases; choose "
                f"with --instance {names}"
            )
        if fitting[0].unknown:
            raise Misuse(fitting[0].unknown)
        return fitting[0]


@contextmanager
def _workshop(path: Path, pythons: Sequence[str], runtimes: str) -> Iterator[Workshop]:
    from reconciler.cli.checkout.bases import Bases
    from reconciler.cli.checkout.maker import Maker
    from reconciler.cli.preview.resolution import cache_of
    from reconciler.cli.preview.revisions import read_checkout
    from reconciler.cli.preview.runtimes import Runtimes, read
    from reconciler.settings import Settings

    settings = Settings()
    side = read_checkout(path)
    if side.definitions.findings:
        for finding in side.definitions.findings:
            warn(finding_line(finding))
        raise typer.Exit(Exit.WRONG)
    with tempfile.TemporaryDirectory(prefix="groundcrew-build-") as scratch:
        maker = Maker(settings, side, Path(scratch))
        known = read(runtimes) if runtimes else Runtimes()
        bases = Bases(side, pythons, known, cache_of(settings), settings.builder.default_index)
        yield Workshop(side, bases, maker, settings.builder.default_index)


def _built(shop: Workshop, wanted: Sequence[Environment]) -> Iterator[Outcome]:
    environments = wanted or list(shop.side.definitions.environments.values())
    with working("inspecting bases") as tell:
        for environment in environments:
            for base in shop.bases.of(environment):

                def told(phase: str, name: str = environment.name) -> None:
                    tell(f"{name}: {phase}")

                yield shop.maker.build(environment, base, told)


def _show(outcomes: Sequence[Outcome], *, log: bool) -> None:
    for outcome in outcomes:
        if log and not outcome.is_good:
            sys.stderr.write(plain(outcome.log))
    rows = []
    for outcome in outcomes:
        reason = str(outcome.problem.reason) if outcome.problem is not None else ""
        result = reason or ("not known" if outcome.unknown else "ok")
        packages = ", ".join(f"{name} {version}" for name, version in outcome.packages.items())
        rows.append(
            [outcome.environment, ", ".join(outcome.instances), outcome.runtime, result, packages]
        )
    print_table(["ENVIRONMENT", "INSTANCES", "RUNTIME", "RESULT", "PACKAGES"], rows)
    for outcome in outcomes:
        if outcome.problem is not None:
            say(problem_line(outcome.problem))
        if outcome.unknown:
            say(f"{outcome.environment}: {outcome.unknown}")


def _document(outcome: Outcome) -> dict[str, object]:
    from reconciler.api.documents import problem_document

    return {
        "environment": outcome.environment,
        "runtime": outcome.runtime,
        "instances": list(outcome.instances),
        "packages": [{"name": n, "version": v} for n, v in outcome.packages.items()],
        "problem": problem_document(outcome.problem),
        "unknown": outcome.unknown,
        "log": outcome.log,
    }
