"""Command `groundcrew doctor`: checks the daemon's dependencies and gives advice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.options import Output
from reconciler.cli.output import Format, print_document, print_table, say, warn
from reconciler.doctor.findings import Check, Level

if TYPE_CHECKING:
    from reconciler.doctor.findings import Finding
    from reconciler.doctor.runner import Task

NAMES = ", ".join(Check)


def _names() -> list[str]:
    return [str(check) for check in Check]


def doctor(
    checks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHECK]...",
            help=f"Run only these checks: {NAMES}.",
            autocompletion=_names,
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Check everything that the daemon depends on, and say what to fix.

    Run it as the daemon's user, with its settings, where the daemon runs. Nothing live is changed:
    what is written to the share is removed again, no message is sent and no pool is touched. Exit 1
    if something is wrong, 3 if something does not respond.
    """
    from reconciler.cli.progress import working
    from reconciler.doctor.doctor import diagnose
    from reconciler.settings import Settings

    wanted = [_check(name) for name in checks or ()]
    settings = Settings()
    with working("looking at everything") as tell:

        def ended(task: Task) -> None:
            tell(f"looked at {task.check} {task.object}")

        findings = diagnose(settings, wanted, ended)
    if output is not Format.TABLE:
        print_document([finding_document(f) for f in findings], output)
    else:
        _show(findings)
    code = exit_code(findings)
    if code is not Exit.DONE:
        raise typer.Exit(code)


def _check(said: str) -> Check:
    from difflib import get_close_matches

    if said in _names():
        return Check(said)
    close = get_close_matches(said, _names(), 1)
    raise Misuse(f"no check {said}; " + (f"did you mean {close[0]}?" if close else f"try {NAMES}"))


def exit_code(found: list[Finding]) -> Exit:
    """Return the exit code: WRONG before UNREACHABLE; a warning is neither."""
    levels = {f.level for f in found}
    if Level.WRONG in levels:
        return Exit.WRONG
    return Exit.UNREACHABLE if Level.UNREACHABLE in levels else Exit.DONE


def finding_document(finding: Finding) -> dict[str, str]:
    """Return a finding's stable document: check, object, level, reason, message, mend."""
    return {
        "check": str(finding.check),
        "object": finding.object,
        "level": str(finding.level),
        "reason": finding.reason,
        "message": finding.message,
        "mend": finding.mend,
    }


def _show(found: list[Finding]) -> None:
    print_table(
        ["LEVEL", "CHECK", "OBJECT", "FINDING"],
        [[str(f.level), str(f.check), f.object, f.message] for f in found],
    )
    bad = [f for f in found if f.level not in (Level.OK, Level.OFF)]
    if bad:
        say("")
    for finding in bad:
        say(f"{finding.check} {finding.object}: [{finding.reason}] {finding.mend}")
    counts = {level: sum(f.level is level for f in found) for level in Level}
    warn(", ".join(f"{count} {level}" for level, count in counts.items() if count))
