"""Packages of a build against those of another one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.model import BuildRecord


class Change(StrEnum):
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

    @property
    def change(self) -> Change:
        """Its change from the old build to the new one."""
        if not self.old:
            return Change.NEW
        if not self.new:
            return Change.REMOVED
        return Change.SAME if self.old == self.new else Change.CHANGED


@dataclass(frozen=True, slots=True)
class Comparison:
    """All packages of two builds, by name."""

    rows: tuple[PackageRow, ...]

    @property
    def different(self) -> tuple[PackageRow, ...]:
        """The packages that are not the same in both."""
        return tuple(row for row in self.rows if row.change is not Change.SAME)

    @property
    def same(self) -> int:
        """The number of packages that are the same in both."""
        return len(self.rows) - len(self.different)


def compare(old: BuildRecord | None, new: BuildRecord | None) -> Comparison:
    """Return the packages of two builds; None has no packages, like the bare base."""
    before = dict(old.packages) if old else {}
    after = dict(new.packages) if new else {}
    names = sorted(before.keys() | after.keys())
    return Comparison(tuple(PackageRow(n, before.get(n, ""), after.get(n, "")) for n in names))
