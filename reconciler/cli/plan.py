"""Command `groundcrew plan`: shows what the newest revision or a pull request would change."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.output import (
    Format,
    document_of,
    finding_line,
    first_line,
    print_document,
    print_json,
    print_table,
    problem_line,
    say,
)
from reconciler.cli.progress import working

if TYPE_CHECKING:
    from reconciler.cli.preview.comparison import Preview
    from reconciler.cli.preview.runtimes import Runtimes
    from reconciler.settings import Settings


class PlanFormat(StrEnum):
    """Formats that `plan -o` accepts."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"


def plan(
    base: Annotated[
        str,
        typer.Option(
            help="Plan a pull request: the changes of the checkout relative to this branch."
        ),
    ] = "",
    path: Annotated[Path, typer.Option(help="With --base: path of the checkout.")] = Path(),
    runtimes: Annotated[
        str,
        typer.Option(
            help="With --base: a daemon's address, or a file or address with what "
            "`groundcrew runtimes` prints."
        ),
    ] = "",
    advisories: Annotated[
        str, typer.Option(help="With --base: URL of the OSV service for advisories, or `off`.")
    ] = "https://api.osv.dev",
    output: Annotated[
        PlanFormat, typer.Option("-o", "--output", help="Output format.")
    ] = PlanFormat.TABLE,
) -> None:
    """Show what the newest revision would change, or with --base what a pull request would.

    With --base no daemon is needed: run it in a checkout of the environments repo. It exits 1 if
    the change introduces a mistake or a conflict, and 3 if not everything could be determined.
    """
    if not base:
        if output is PlanFormat.MARKDOWN or runtimes:
            raise Misuse("-o markdown and --runtimes need --base, such as --base origin/main")
        _newest(Format(output.value))
        return
    planned = preview(base, path, runtimes, advisories)
    _show(planned, output)
    if planned.wrong:
        raise typer.Exit(Exit.WRONG)
    if any(change.unknown for change in planned.changes):
        raise typer.Exit(Exit.UNREACHABLE)


def _newest(output: Format) -> None:
    """Print what the newest revision of the repo would change, and what that waits for."""
    from reconciler.daemon import plan_preview

    with working("reading the environments repo"):
        lines = plan_preview.plan(settings_with_repo())
    if output is not Format.TABLE:
        print_document([line.document() for line in lines], output)
        return
    if not lines:
        say("nothing would change")
        return
    print_table(
        ["OBJECT", "ACTION", "WHY", "WAITS ON"],
        [[x.object, x.action, first_line(x.message), x.waits_on] for x in lines],
    )


def settings_with_repo() -> Settings:
    """Return the settings. Raises Misuse unless they name an environments repo."""
    from reconciler.settings import Settings

    settings = Settings()
    if not settings.git.url:
        raise Misuse(
            "no environments repo is set; write git.url in groundcrew.toml, or set "
            "GROUNDCREW_GIT__URL to an https, ssh or file:// address or an absolute path"
        )
    return settings


def preview(base: str, path: Path, runtimes: str, advisories: str) -> Preview:
    """Return what the checkout at `path` would change, relative to `base`."""
    from dataclasses import replace

    from reconciler.cli.preview.advisories import with_advisories
    from reconciler.cli.preview.comparison import compare
    from reconciler.cli.preview.resolution import Resolver, private_names, with_packages
    from reconciler.cli.preview.revisions import read_sides
    from reconciler.daemon.windows import window_state
    from reconciler.settings import Settings

    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="groundcrew-plan-") as folder:
        scratch = Path(folder)
        sides = read_sides(path, base, scratch)
        old, new = (side.definitions for side in sides)
        now = time.time()
        comparison = compare(old, new, lambda w: window_state(w, now), settings.prune_fraction)
        resolver = Resolver(settings, sides, scratch)
        known = _runtimes(settings, runtimes)
        with working("working out packages", len(comparison.changes)) as tell:
            changes = with_packages(comparison.changes, sides, known, resolver, tell)
        comparison = replace(comparison, changes=changes)
    before, after = (private_names(side) for side in sides)
    private = {
        name: before.get(name, frozenset()) | after.get(name, frozenset())
        for name in {*before, *after}
    }
    with working("asking for advisories"):
        return with_advisories(comparison, private, advisories)


def _runtimes(settings: Settings, source: str) -> Runtimes:
    """Return the runtimes from the given source, otherwise those of the records, if any."""
    from reconciler.cli.preview.runtimes import Runtimes, of_records, read
    from reconciler.core.errors import GroundcrewError
    from reconciler.daemon.open_records import current

    if source:
        return read(source)
    try:
        return of_records(current(settings))
    except GroundcrewError:
        return Runtimes()


def _show(found: Preview, output: PlanFormat) -> None:
    match output:
        case PlanFormat.MARKDOWN:
            from reconciler.cli.preview.markdown import markdown

            say(markdown(found).rstrip("\n"))
        case PlanFormat.JSON | PlanFormat.YAML:
            from pydantic import TypeAdapter

            from reconciler.cli.preview.comparison import Preview

            document = TypeAdapter(Preview).dump_python(found, mode="json")
            print_document(document, Format(output.value))
        case PlanFormat.TABLE:
            _table(found)


def _table(found: Preview) -> None:
    if not found.changes and not found.findings:
        say("nothing would change")
        return
    rows = []
    for change in found.changes:
        packages = change.packages.short if change.packages is not None else "-"
        why = change.problem.reason if change.problem else "not known" if change.unknown else ""
        waits = "; ".join(change.waits_on)
        rows.append([change.instance, change.team, change.action, packages, waits, why])
    if rows:
        print_table(["INSTANCE", "TEAM", "ACTION", "PACKAGES", "WAITS ON", "PROBLEM"], rows)
    for line in dict.fromkeys(_packages(found)):
        say(line)
    for line in dict.fromkeys(_explained(found)):
        say(line)
    for change in found.changes:
        for advisory in change.advisories:
            new = "new" if advisory.new else "stays"
            say(f"{change.instance}: {advisory.package} {advisory.version} {advisory.id} ({new})")
    for finding in found.findings:
        say(finding_line(finding))
    if found.lost:
        say(f"held until `groundcrew confirm-prune`: it removes {', '.join(found.lost)}")


def _packages(found: Preview) -> Iterator[str]:
    """Yield which packages change, and which are in the base already, once for equal changes."""
    for change in found.changes:
        on = f"{change.environment} on {change.runtime}"
        packages = change.packages
        if packages is not None:
            yield from (f"{on}: + {name} {version}" for name, version in packages.added.items())
            yield from (f"{on}: - {name} {version}" for name, version in packages.removed.items())
            for name, (before, after) in packages.changed.items():
                yield f"{on}: ~ {name} {before} → {after}"
        if change.in_base:
            named = ", ".join(f"{name} {version}" for name, version in change.in_base.items())
            yield f"{on}: already in the base: {named}"


def _explained(found: Preview) -> Iterator[str]:
    """Yield texts about problems of the changes, and about anything that is unknown."""
    for change in found.changes:
        if change.problem is not None:
            yield problem_line(change.problem)
        if change.unknown:
            yield f"{change.instance}: {change.unknown}"


def runtimes(
    output: Annotated[
        Literal["json"], typer.Option("-o", "--output", help="Output format.")
    ] = "json",
) -> None:
    """Print what is installed in each instance's base, for `plan --base` in a CI elsewhere."""
    from reconciler.cli.sources.choice import opened

    del output
    with opened() as source:
        print_json(document_of(source.runtimes()))
