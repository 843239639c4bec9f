"""For every test: with GROUNDCREW_TESTS_STRICT a skipped test fails the run, as CI wants it."""

from __future__ import annotations

import os

import pytest

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped."""
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a strict run in which a test could not run."""
    if _skipped and os.environ.get("GROUNDCREW_TESTS_STRICT"):
        print(f"\nskipped, and that is not allowed here: {', '.join(_skipped)}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
