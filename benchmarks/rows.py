"""Result of a benchmark: our figure, the figure of an alternative, and the limit."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One line of results.

    `target` is a description, `limit` the corresponding figure in this run: `value` may not exceed
    it (None: no target). A `count` is the same on every machine, or nearly so; any other value
    depends on the machine and its load.
    """

    benchmark: str
    measure: str
    value: float
    unit: str
    target: str = "–"
    limit: float | None = None
    peer: str = ""
    peer_value: float | None = None
    count: bool = False

    @property
    def met(self) -> bool:
        """True if the target is met in this run."""
        return self.limit is None or self.value <= self.limit

    @property
    def ratio(self) -> float | None:
        """The peer's figure divided by ours: larger is better for us."""
        if self.peer_value is None or self.value == 0:
            return None
        return self.peer_value / self.value

    @property
    def part(self) -> float | None:
        """The fraction of the limit that is used: more than 1 is a miss."""
        if self.limit is None or (self.limit == 0 and self.value > 0):
            return None
        return self.value / self.limit if self.limit else 0.0

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of HEADS."""
        return (
            self.benchmark,
            self.measure,
            figure(self.value, self.unit),
            self.peer or "–",
            figure(self.peer_value, self.unit) if self.peer_value is not None else "–",
            f"{_digits(self.ratio)}×" if self.ratio is not None else "–",
            self.target,
            _part(self.part) if self.part is not None else "–",
            "–" if self.limit is None else "yes" if self.met else "NO",
        )


HEADS = (
    "benchmark",
    "measure",
    "value",
    "peer",
    "peer's value",
    "peer / ours",
    "target",
    "ours / limit",
    "met",
)


def figure(value: float, unit: str) -> str:
    """Return a figure with three significant digits; whole numbers are unchanged."""
    return f"{_digits(value)} {unit}".rstrip()


def _part(part: float) -> str:
    """Return two decimals, or three close to the limit, where two would not be enough."""
    return f"{part:.{3 if 0 < abs(part - 1) < 0.01 else 2}f}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 999.5 else f"{value:.3g}"


def show(rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table(*HEADS)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=180).print(table)
