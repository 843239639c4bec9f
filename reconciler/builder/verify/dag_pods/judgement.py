"""Judgement of parsed DAGs: files that break with a build but work without it. Pure.

A file counts against a build only if it works with the reference (the active build, or the base
alone if none is active), in the same pod and under the same conditions. A file that asks for a
Variable or Connection, of which the pod has none, is not judged; but it counts if it gets that far
without the build, and cannot even do its imports with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reconciler.builder.verify.dag_pods.report import Outcome, Report, Row
from reconciler.core.model import DagCheck

NAMES = 10  # files that a message names
WORDS_LIMIT = 300  # characters of an error in a message
WORKS = frozenset({"ok", "forks"})

_NEEDS = re.compile(
    r"Variable .{0,200} does not exist|VARIABLE_NOT_FOUND|CONNECTION_NOT_FOUND"
    r"|AirflowNotFoundException|The conn_id .{0,200} isn't defined|SUPERVISOR_COMMS"
    r"|no such table|unable to open database file|OperationalError|UnmappedInstanceError"
)
_IMPORT = re.compile(r"(ModuleNotFoundError|ImportError|SyntaxError|AttributeError|NameError)\b")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Files that count against the build, as (file, message, error), and the check's results."""

    against: tuple[tuple[str, str, str], ...]
    check: DagCheck


def judge(report: Report, instance: str, source: str, reference: str) -> Judgement:
    """Judge a report; `reference` describes the build that the candidate was compared to."""
    against: list[tuple[str, str, str]] = []
    failing: list[str] = []
    unjudged: list[tuple[str, str]] = []
    if report.failed and not report.reference_failed and report.count:
        message = f"Airflow does not start with this build, but does {reference}"
        against.append(("", message, report.failed))
    for row in report.rows:
        if message := _against(row, reference):
            against.append((row.file, message, row.candidate.error))
        elif reason := _unjudged(row, compared=not report.reference_failed):
            unjudged.append((row.file, reason))
        else:
            failing.append(row.file)
    seen = 0 if report.failed else report.count - report.late
    check = DagCheck(
        instance,
        source=f"{source} at {report.commit[:10]}" if report.commit else source,
        seen=seen,
        names=tuple(report.files[:NAMES]),
        failing=tuple(failing[:NAMES]),
        unjudged=tuple(unjudged[:NAMES]),
        unseen="; ".join(_unseen(report)),
        mark=report.mark,
    )
    return Judgement(tuple(against), check)


def _against(row: Row, reference: str) -> str:
    """Return the reason why a file counts against the build, or ""."""
    other = row.reference
    if other is None:
        return ""
    kind = kind_of(row.candidate)
    last = last_line(row.candidate.error)
    if other.kind in WORKS:
        match kind:
            case "error":
                return f"parses {reference}, but not with this build: {last}"
            case "hung":
                return f"parses {reference}, but does not end with this build"
            case "died":
                return f"parses {reference}, but ends its process with this build: {last}"
    if kind_of(other) == "needs" and kind == "error" and _IMPORT.search(last):
        return f"gets as far as its variables {reference}, but not with this build: {last}"
    return ""


def _unjudged(row: Row, *, compared: bool) -> str:
    """Return the reason why a file cannot be judged; "" if it also fails without the build."""
    match kind_of(row.candidate):
        case "needs":
            return f"it needs a variable or connection: {last_line(row.candidate.error)}"
        case "hung":
            return "it does not end in time, without this build either"
        case "died":
            return "it ends its own process, without this build either"
        case "forks":
            return "it leaves processes behind; it parses"
        case _:
            return "" if compared and row.reference is not None else last_line(row.candidate.error)


def _unseen(report: Report) -> list[str]:
    """Return the reasons why DAGs were not seen."""
    messages = list(report.unseen)
    if report.failed and report.reference_failed:
        messages.append(f"Airflow does not start in the pod: {last_line(report.failed)}")
    if report.late:
        messages.append(
            f"the time was over before {report.late} files were parsed; raise "
            f"builder.verify_timeout"
        )
    if not report.count and not messages:
        messages.append(f"there is no DAG file in {', '.join(report.folders)}")
    return messages


def needs_values(error: str) -> bool:
    """Return True for an error caused by a missing variable, connection or Airflow database."""
    return _NEEDS.search(error) is not None


def kind_of(outcome: Outcome) -> str:
    """Return the kind of an outcome; `needs` is an error for want of a variable or connection."""
    if outcome.kind == "error" and needs_values(outcome.error):
        return "needs"
    return outcome.kind


def last_line(error: str) -> str:
    """Return the line of a stack trace that has the error."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1][:WORDS_LIMIT] if lines else "unknown"
