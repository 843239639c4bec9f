"""The database itself: tables that are made once, and messages if it cannot be used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from reconciler.cli import main
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.store import schema
from reconciler.store.store import Store
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import Site


def test_the_migration_makes_the_tables_that_the_code_speaks_of(store: Store) -> None:
    """The migration of an empty database creates exactly the metadata; a second changes nothing."""
    store.migrate()
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    """An old Groundcrew does not touch the database of a newer one."""
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Stalled) as caught:
        store.migrate()
    assert caught.value.reason == Reason.SCHEMA_TOO_NEW
    assert "upgrade" in caught.value.message


def test_a_database_that_is_not_there_says_so() -> None:
    """If the server is down, a later try makes sense, and the message says so."""
    store = Store("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(Retryable) as caught:
        store.load()
    assert caught.value.reason == Reason.DATABASE_UNAVAILABLE
    store.close()


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["history"],
        ["history", "x"],
        ["logs", "x"],
        ["runtimes"],
        ["retry", "x"],
        ["gc", "--dry-run"],
    ],
    ids=" ".join,
)
def test_before_the_tables_are_made_commands_say_so(
    command: list[str],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """If the daemon is just starting for the first time, the message says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDCREW_DATABASE", database_url)
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("GROUNDCREW_SHARE", str(tmp_path / "share"))
    store = Store(database_url)
    try:
        with store.engine.connect():
            assert main(command) == 3
        said = capsys.readouterr().err
        assert "the daemon has not written any records yet" in said
        assert "table" not in said
        store.migrate()
        assert main(["history"]) == 0
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
        assert main(command) == 3
        assert "schema 0000 of an earlier Groundcrew" in capsys.readouterr().err
    finally:
        store.close()


def test_before_the_tables_are_made_all_of_a_plan_is_new(database_url: str, tmp_path: Path) -> None:
    """An empty database counts as none; one of an earlier version does not."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
    store = Store(database_url)
    try:
        with store.engine.connect():
            code, said = site.run("plan", GROUNDCREW_DATABASE=database_url)
        assert code == 0, said
        assert "environment/one" in said
        store.migrate()
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
        code, said = site.run("plan", GROUNDCREW_DATABASE=database_url)
        assert code == 3
        assert "schema 0000 of an earlier Groundcrew" in said
    finally:
        store.close()


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    """A damaged SQLite file is not overwritten; the message names it."""
    path = tmp_path / "groundcrew.db"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 40)
    store = Store(f"sqlite:///{path}")
    with pytest.raises(Stalled) as caught:
        store.migrate()
    assert caught.value.reason == Reason.DATABASE_DAMAGED
    assert str(path) in caught.value.message
    store.close()


def test_replicas_that_start_together_make_the_tables_once(postgresql_url: str) -> None:
    """All of them end up with a usable database."""
    stores = [Store(postgresql_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: store.migrate(), stores))
    for store in stores:
        assert store.load().instances == {}
        store.close()
