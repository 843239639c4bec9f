"""Differences between the packages of two builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Packages = Mapping[str, str]
"""Mapping from name to version."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Packages that a change adds, removes, or moves to another version (before, after)."""

    added: Packages = field(default_factory=dict)
    removed: Packages = field(default_factory=dict)
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """Summary such as +1 -0 ~2, or "none"."""
        counts = (len(self.added), len(self.removed), len(self.changed))
        return "+{} -{} ~{}".format(*counts) if any(counts) else "none"


def difference(before: Packages, after: Packages) -> Difference:
    """Return the difference from `before` to `after`, by name."""
    return Difference(
        {n: v for n, v in sorted(after.items()) if n not in before},
        {n: v for n, v in sorted(before.items()) if n not in after},
        {n: (before[n], v) for n, v in sorted(after.items()) if before.get(n, v) != v},
    )
