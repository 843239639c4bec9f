"""Packages of a build against those of another one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.model import BuildRecord
from reconciler.core.packages import difference


class PackageChange(StrEnum):
    """Difference of a package; the values are words and CSS classes."""

    NEW = "new"
    REMOVED = "removed"
    CHANGED = "changed"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class PackageRow:
    """Package with its version in the old and in the new build; "" where it is not installed."""

    name: str
    old: str
    new: str
    change: PackageChange


@dataclass(frozen=True, slots=True)
class Comparison:
    """All packages of two builds, by name."""

    rows: tuple[PackageRow, ...]

    @property
    def different(self) -> tuple[PackageRow, ...]:
        """The packages that are not the same in both."""
        return tuple(row for row in self.rows if row.change is not PackageChange.SAME)

    @property
    def same(self) -> int:
        """The number of packages that are the same in both."""
        return len(self.rows) - len(self.different)


def compare(old: BuildRecord | None, new: BuildRecord | None) -> Comparison:
    """Return the packages of two builds; None has no packages, like the bare base."""
    before = dict(old.packages) if old else {}
    after = dict(new.packages) if new else {}
    packages = difference(before, after)
    rows = [
        *(PackageRow(n, "", v, PackageChange.NEW) for n, v in packages.added.items()),
        *(PackageRow(n, v, "", PackageChange.REMOVED) for n, v in packages.removed.items()),
        *(
            PackageRow(n, *versions, PackageChange.CHANGED)
            for n, versions in packages.changed.items()
        ),
        *(PackageRow(n, v, v, PackageChange.SAME) for n, v in after.items() if before.get(n) == v),
    ]
    return Comparison(tuple(sorted(rows, key=lambda row: row.name)))
