"""Saved results: results.json, and RESULTS.md for people.

Both hold the last run of each benchmark with its own date, machine and command; a run of one
benchmark leaves the others unchanged.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from benchmarks.rows import HEADS, Row

FOLDER = Path(__file__).parent
DERIVED = ("ratio", "met")  # of a row: written for readers of the file, and not read back
HEAD = """# Results

Written by `make bench`; each benchmark has the date of its own last run. Counts (round trips,
bytes, statements, builds) are nearly the same on every machine, and a short run of each is tested
with the rest; seconds are an illustration. *peer / ours* larger than 1: we are better. *ours /
limit* larger than 1: the target is missed.
"""


def machine() -> str:
    """Return a description of this machine, without its host name."""
    memory = psutil.virtual_memory().total / (1 << 30)
    kernel = re.match(r"[\d.]*\d", platform.release())
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()} "
        f"{kernel[0] if kernel else ''} {platform.machine()}, Python {platform.python_version()}"
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one benchmark."""

    name: str
    about: str  # one sentence about what is measured
    rows: tuple[Row, ...]
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d", time.gmtime()))
    machine: str = field(default_factory=machine)

    @property
    def command(self) -> str:
        """Command that repeats the run."""
        return f"make bench NAME={self.name}"


def keep(run: Run, names: Sequence[str], folder: Path = FOLDER) -> None:
    """Save a run in both files in place of the last one; `names` gives the order of benchmarks."""
    runs = {**read(folder), run.name: run}
    ordered = [runs[name] for name in names if name in runs]
    path = folder / "results.json"
    path.write_text(json.dumps([_plain(run) for run in ordered], indent=1, ensure_ascii=False))
    (folder / "RESULTS.md").write_text(text(ordered))


def _plain(run: Run) -> dict[str, object]:
    """Return a run as JSON data; rows include derived values for readers of the file alone."""
    rows = [asdict(row) | {name: getattr(row, name) for name in DERIVED} for row in run.rows]
    return asdict(run) | {"rows": rows}


def read(folder: Path = FOLDER) -> Mapping[str, Run]:
    """Return the saved runs by name."""
    path = folder / "results.json"
    if not path.is_file():
        return {}
    runs = {}
    for kept in json.loads(path.read_text()):
        rows = tuple(
            Row(**{name: value for name, value in row.items() if name not in DERIVED})
            for row in kept.pop("rows")
        )
        runs[kept["name"]] = Run(**kept, rows=rows)
    return runs


def text(runs: Sequence[Run]) -> str:
    """Return the text of RESULTS.md."""
    parts = [HEAD]
    missed = [row for run in runs for row in run.rows if not row.met]
    if missed:
        rows = [f"- {r.benchmark}: {r.measure}: {r.cells()[2]} ({r.target})" for r in missed]
        parts.append("\n".join(("Missed:\n", *rows, "")))
    for run in runs:
        head = f"## {run.name}\n\n{run.about}\n\n{run.date}, {run.machine}: `{run.command}`\n"
        table = [HEADS, ("---",) * len(HEADS), *(row.cells() for row in run.rows)]
        parts.append(head + "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n")
    return "\n".join(parts)
