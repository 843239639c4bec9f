"""A benchmark's result: what we took, what a user would do instead took, and the ratio."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One line of results.

    `ratio` is peer_value / value where a peer is given (larger is better for us). `target` is in
    words; `met` says whether it holds in this run.
    """

    benchmark: str
    measure: str
    value: float
    unit: str
    target: str
    met: bool
    peer: str = ""
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the peer's figure is ours."""
        if self.peer_value is None or self.value == 0:
            return None
        return self.peer_value / self.value


def show(rows: list[Row]) -> None:
    """Print the rows side by side."""
    table = Table("benchmark", "measure", "value", "peer", "peer's value", "ratio", "target", "met")
    for row in rows:
        table.add_row(
            row.benchmark,
            row.measure,
            f"{row.value:.3g} {row.unit}",
            row.peer or "–",
            f"{row.peer_value:.3g} {row.unit}" if row.peer_value is not None else "–",
            f"{row.ratio:.1f}×" if row.ratio is not None else "–",
            row.target,
            "yes" if row.met else "NO",
        )
    Console(width=160).print(table)


def write(rows: list[Row], path: Path) -> None:
    """Write the rows as JSON."""
    document = [{**asdict(row), "ratio": row.ratio} for row in rows]
    path.write_text(json.dumps(document, indent=2) + "\n")
