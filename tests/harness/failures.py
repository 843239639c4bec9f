"""Failures in a run of the tests, written for `scripts.rerun_failed`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

VARIABLE = "GROUNDCREW_TEST_FAILURES"
"""Variable with the name of the file that a run writes; without it nothing is written."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Result of a run: exit code and ids of tests; `properties` are also in `failed`."""

    exit_code: int
    failed: list[str] = field(default_factory=list)
    properties: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the result as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Failures:
        """Read the output of `write`. Raises OSError, ValueError or TypeError for anything else."""
        return cls(**json.loads(path.read_text()))


class Recorder:
    """Collector of the reports of a run, including those of other processes."""

    def __init__(self) -> None:
        self._failed: dict[str, bool] = {}
        self.skipped: list[str] = []

    def add(self, report: pytest.TestReport) -> None:
        """Remember the report of a test that failed or was skipped."""
        if report.failed:
            self._failed[report.nodeid] = "hypothesis" in report.keywords
        if report.skipped:
            self.skipped.append(report.nodeid)

    def failures(self, exit_code: int) -> Failures:
        """Return everything that was collected."""
        properties = [name for name, is_property in self._failed.items() if is_property]
        return Failures(exit_code, list(self._failed), properties, self.skipped)
