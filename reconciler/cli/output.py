"""Output of commands: tables for people, stable JSON documents for programs.

Everything from a repo, a log or a record is untrusted: control characters never reach a terminal,
and markup in it is never interpreted. Colours are used only on a terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from reconciler.core.formatting import age

if TYPE_CHECKING:
    from pydantic import BaseModel

    from reconciler.api import contract
    from reconciler.core.definitions import Finding
    from reconciler.core.model import Problem
from reconciler.core.phases import ActivationPhase, BuildPhase, Health, Sync

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
WIDE = 10_000  # columns without a terminal: a line of a table stays one line
STYLES: dict[str, str] = {
    Health.HEALTHY: "green",
    Sync.SYNCED: "green",
    ActivationPhase.ACTIVE: "green",
    BuildPhase.READY: "green",
    Health.DEGRADED: "bold red",
    BuildPhase.FAILED: "red",
    ActivationPhase.ROLLED_BACK: "red",
    "Stalled": "red",
    Sync.OUT_OF_SYNC: "yellow",
    Health.PROGRESSING: "yellow",
    Health.SUSPENDED: "magenta",
    Health.MISSING: "yellow",
    "ok": "green",
    "off": "dim",
    "warning": "yellow",
    "wrong": "bold red",
    "unreachable": "red",
}


class Format(StrEnum):
    """Formats that `-o` accepts."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def plain(text: str) -> str:
    """Return `text` without characters that control a terminal."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str) -> None:
    """Print a line for people on stdout."""
    sys.stdout.write(f"{plain(text)}\n")


def warn(text: str) -> None:
    """Print a line for people on stderr, separate from the output that programs read."""
    sys.stderr.write(f"{plain(text)}\n")


def print_json(document: object) -> None:
    """Print a document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_document(document: object, output: Format) -> None:
    """Print a document as JSON or YAML."""
    if output is Format.YAML:
        sys.stdout.write(_yaml(document))
    else:
        print_json(document)


def print_next(document: object, output: Format) -> None:
    """Print one of several documents: JSON is a line, YAML begins with its own mark."""
    if output is Format.YAML:
        sys.stdout.write(f"---\n{_yaml(document)}")
    else:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def _yaml(document: object) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Dumper that writes enums as plain texts, as JSON does."""

    Dumper.add_multi_representer(StrEnum, lambda dumper, value: dumper.represent_str(str(value)))
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns; words of STYLES are coloured on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    person = sys.stdout.isatty()
    console = Console(
        file=sys.stdout, width=None if person else WIDE, highlight=False, soft_wrap=not person
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not person)
    for row in rows:
        cells = [plain(cell if person else cell.replace("\n", " ")) for cell in row]
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def problem_line(problem: Problem | contract.Problem) -> str:
    """Return a problem for people, as a line that tools which look for a place can read."""
    location = f"{problem.place}: " if problem.place else ""
    return f"{location}[{problem.reason}] {problem.message}"


def finding_line(finding: Finding) -> str:
    """Return a mistake in the environments repo in the same form, with its object."""
    return f"{finding.place}: [{finding.reason}] {finding.object}: {finding.message}"


def reported_line(finding: contract.Finding) -> str:
    """Return a mistake that a source reported in the same form."""
    from reconciler.core.definitions import Place

    location = Place(finding.file, finding.line, finding.column)
    return f"{location}: [{finding.reason}] {finding.object}: {finding.message}"


def document_of(model: BaseModel) -> dict[str, object]:
    """Return a document of the API as JSON-compatible values."""
    return model.model_dump(mode="json")


def seconds_of(at: datetime | None) -> float:
    """Return a time in seconds since the epoch; 0 for no time."""
    return at.timestamp() if at is not None else 0.0


def ago(at: float, now: float) -> str:
    """Return how long ago `at` was, for people; "-" for no time."""
    return age(at, now) if at else "-"


def first_line(text: str) -> str:
    """Return the first line of a message, for a table."""
    return text.splitlines()[0] if text else ""
