"""Results of the node's tests, written to a file of the repository with their dates."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.harness.node.programs import VERSION

TITLE = f"""\
# Last results of the tests on a real node

Written by `make node-test ALL=1`; a part that is run alone replaces its own rows. A test without a
row has not been run to its end yet. Seconds depend on the machine, and on what else runs on it:
{os.cpu_count()} CPUs, Kubernetes {VERSION}.

| test | result | seconds | on (UTC) | load |
|---|---|---|---|---|
"""
ROW = re.compile(r"\| `(?P<test>[^`]+)` \|.*")


@dataclass
class Results:
    """A plugin of pytest that notes each test's outcome, seconds, time and the machine's load."""

    path: Path
    rows: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test took, or that its preparation failed."""
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.rpartition("/")[2]
            now, load = datetime.now(UTC), os.getloadavg()[1]
            self.rows[name] = (
                f"| `{name}` | {report.outcome} | {report.duration:.0f} | {now:%Y-%m-%d %H:%M} | "
                f"{load:.0f} |"
            )

    def pytest_sessionfinish(self) -> None:
        """Write the file; rows of tests that did not run now stay."""
        old = self.path.read_text().splitlines() if self.path.exists() else []
        kept = {match["test"]: match[0] for line in old if (match := ROW.match(line))}
        rows = sorted({**kept, **self.rows}.items())
        self.path.write_text(TITLE + "".join(f"{row}\n" for _, row in rows))
