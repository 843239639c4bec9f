"""Results of the node's tests, written to a file of the repository with their date."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.harness.node.programs import VERSION

TITLE = """\
# Last results of the tests on a real node

Written by `make node-test ALL=1`. Seconds depend on the machine, and on what else runs on it.
"""


@dataclass
class Results:
    """A plugin of pytest that notes each test's outcome and seconds."""

    path: Path
    rows: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test took, or that its preparation failed."""
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.rpartition("/")[2]
            self.rows.append(f"| `{name}` | {report.outcome} | {report.duration:.0f} |")

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        now, load = datetime.now(UTC), os.getloadavg()[2]
        lines = [
            TITLE,
            f"{now:%Y-%m-%d %H:%M} UTC, Kubernetes {VERSION}, {os.cpu_count()} CPUs, a load of "
            f"{load:.0f} in the last 15 minutes.\n",
            "| test | result | seconds |",
            "|---|---|---|",
            *self.rows,
        ]
        self.path.write_text("\n".join(lines) + "\n")
