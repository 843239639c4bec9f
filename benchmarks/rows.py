"""A benchmark's result: what we took, what a user would do instead took, and the limit."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One line of results.

    `target` is in words, `limit` the figure that it comes to in this run: `value` may not be
    larger (None: nothing is asked). A `count` is the same on every machine, or nearly so; anything
    else depends on the machine and on what else it does.
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
        """Does the target hold in this run."""
        return self.limit is None or self.value <= self.limit

    @property
    def ratio(self) -> float | None:
        """How many times the peer's figure is ours: larger is better for us."""
        if self.peer_value is None or self.value == 0:
            return None
        return self.peer_value / self.value

    @property
    def part(self) -> float | None:
        """Which part of the limit is used: more than 1 is a miss."""
        if self.limit is None or (self.limit == 0 and self.value > 0):
            return None
        return self.value / self.limit if self.limit else 0.0

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of HEADS."""
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
    "benchmark", "measure", "value", "peer", "peer's value", "peer / ours", "target",
    "ours / limit", "met",
)  # fmt: skip


def figure(value: float, unit: str) -> str:
    """A figure with three digits that count; whole numbers as they are."""
    return f"{_digits(value)} {unit}".rstrip()


def _part(part: float) -> str:
    """Two decimals, three where it is so near the limit that these would not tell."""
    return f"{part:.{3 if 0 < abs(part - 1) < 0.01 else 2}f}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 999.5 else f"{value:.3g}"


def show(rows: list[Row]) -> None:
    """Print the rows side by side."""
    table = Table(*HEADS)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=180).print(table)
