"""The doctor's checks of databases, message receivers and forges; nothing is sent to them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, inspect, make_url

from reconciler.core.reasons import Reason
from reconciler.doctor import forge, messages, records
from reconciler.doctor.findings import Check, Finding, Level
from reconciler.settings import (
    GitSettings,
    NotifySettings,
    RouteSettings,
    Settings,
    StatusSettings,
)
from reconciler.store.store import Store
from tests.fakes.receiver import JSON, Receiver, Said
from tests.harness.tls_server import Selfmade, serving

TOKEN = "t0ken-of-the-forge"


def reasons(found: list[Finding]) -> list[tuple[str, str]]:
    assert all(f.mend for f in found if f.level not in (Level.OK, Level.OFF))
    return [(str(f.level), f.reason) for f in found]


# --------------------------------------------------------------------------------------- databases


def look(url: str, state: Path) -> list[Finding]:
    """Return the findings about a database."""
    return list(records.look_database(Settings(database=url, state_dir=state)))


def test_postgresql_before_and_after_its_first_daemon(postgresql_url: str, tmp_path: Path) -> None:
    """Without tables it is not in use yet, and none are created; then good, and clocks agree."""
    findings = look(postgresql_url, tmp_path)
    assert reasons(findings) == [("off", "NotUsed"), ("ok", "Good")]
    store = Store(postgresql_url)
    assert not inspect(store.engine).has_table("lease")
    store.migrate()
    store.close()
    findings = look(postgresql_url, tmp_path)
    assert [f.check for f in findings] == [Check.DATABASE, Check.CLOCK]
    assert reasons(findings) == [("ok", "Good"), ("ok", "Good")]
    assert "no daemon runs" in findings[0].message


def test_postgresql_that_refuses(postgresql_url: str, tmp_path: Path) -> None:
    """A missing database is wrong; a missing server is unreachable."""
    url = make_url(postgresql_url)
    gone = url.set(database="nowhere", password="pa55word").render_as_string(hide_password=False)
    findings = look(gone, tmp_path)
    assert reasons(findings) == [("wrong", "DatabaseDenied")]
    assert not any("pa55word" in f.object + f.message + f.mend for f in findings)
    findings = look("postgresql+psycopg://127.0.0.1:9/groundcrew", tmp_path)
    assert reasons(findings) == [("unreachable", "DatabaseUnavailable")]


def test_postgresql_that_takes_no_writes(postgresql_url: str, tmp_path: Path) -> None:
    """A standby, for example, is read-only."""
    name = make_url(postgresql_url).database
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    engine.dispose()
    assert ("wrong", "DatabaseReadOnly") in reasons(look(postgresql_url, tmp_path))


def test_a_clock_that_differs(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The amount and the direction are reported."""
    monkeypatch.setattr(records, "time", SimpleNamespace(time=lambda: time.time() + 60))
    (*_, clock) = look(postgresql_url, tmp_path)
    assert (clock.check, clock.reason) == (Check.CLOCK, Reason.CLOCK_SKEW)
    assert "-60" in clock.message or "-59" in clock.message


def test_sqlite_that_is_missing_damaged_or_newer(tmp_path: Path) -> None:
    """The check creates none; the others are reported."""
    settings = Settings(state_dir=tmp_path / "state")
    assert reasons(list(records.look_database(settings))) == [("off", "NotUsed")]
    assert not (tmp_path / "state").exists()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database " * 1000)
    with pytest.raises(Exception, match="damaged or no database"):
        look(f"sqlite:///{damaged}", tmp_path)
    newer = Store(f"sqlite:///{tmp_path / 'newer.db'}")
    newer.migrate()
    with newer.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    newer.close()
    findings = look(f"sqlite:///{tmp_path / 'newer.db'}", tmp_path)
    assert ("wrong", "SchemaTooNew") in reasons(findings)


def test_an_address_that_is_none(tmp_path: Path) -> None:
    """The address is not repeated: it may contain a password."""
    findings = look("postgres-at-home:pa55word", tmp_path)
    assert reasons(findings) == [("wrong", "DatabaseUnknown")]
    assert "pa55word" not in findings[0].message


# ---------------------------------------------------------------------------------------- messages


@pytest.fixture
def selfmade(tmp_path: Path) -> Iterator[Selfmade]:
    """Yield a server with a self-signed certificate."""
    with serving(tmp_path) as server:
        yield server


def route(secrets: Path, url: str | None) -> list[Finding]:
    """Return the findings about a route whose secret is `url`."""
    if url is not None:
        (secrets / "ops").mkdir(parents=True, exist_ok=True)
        (secrets / "ops" / "url").write_text(url)
    one = RouteSettings(name="ops", kind="webhook", secret="ops")
    settings = Settings(secrets_dir=secrets, notify=NotifySettings(routes=(one,)))
    findings = list(messages.look_route(settings, one))
    assert not any("s3cret" in f.object + f.message + f.mend for f in findings)
    return findings


def test_a_receiver_that_answers_gets_nothing(tmp_path: Path) -> None:
    """A connection is opened, and no request is made."""
    receiver = Receiver()
    assert reasons(route(tmp_path, receiver.url)) == [("ok", "Good")]
    receiver.close()
    assert receiver.got == []


def test_a_receiver_that_does_not_answer(tmp_path: Path) -> None:
    findings = route(tmp_path, "http://127.0.0.1:9/services/s3cret")
    assert reasons(findings) == [("unreachable", "ReceiverUnreachable")]


def test_a_certificate_that_nobody_vouches_for(selfmade: Selfmade, tmp_path: Path) -> None:
    assert reasons(route(tmp_path, f"{selfmade.url}/services/s3cret")) == [
        ("wrong", "CertificateWrong")
    ]


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "ftp://example.com/s3cret",
        "http://",
        "http://[::1/s3cret",
        "https://h:s3cret/",
        "https://hooks.slack.com/s3cret",
    ],
)
def test_an_address_that_cannot_be_one(url: str, tmp_path: Path) -> None:
    """Nothing is connected to, and the text is not repeated."""
    assert reasons(route(tmp_path, url)) == [("wrong", "AddressWrong")]


def test_a_route_without_its_secret(tmp_path: Path) -> None:
    """Wrong if the settings name the route; the default one is just not in use."""
    findings = route(tmp_path, None)
    assert reasons(findings) == [("wrong", "SecretMissing")]
    assert str(tmp_path / "ops" / "url") in findings[0].message
    settings = Settings(secrets_dir=tmp_path)
    (default,) = settings.notify.routes
    assert reasons(list(messages.look_route(settings, default))) == [("off", "NotUsed")]


def test_through_the_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is reached, and the message says so."""
    receiver = Receiver()
    monkeypatch.setenv("http_proxy", receiver.root)
    monkeypatch.setenv("no_proxy", "localhost")
    (finding,) = route(tmp_path, "http://receiver.example/services/s3cret")
    receiver.close()
    assert finding.level is Level.OK
    assert "the proxy 127.0.0.1" in finding.message
    assert receiver.got == []


# ------------------------------------------------------------------------------------------ forges


def ask(kind: str, said: Said, secrets: Path, token: str = TOKEN) -> list[Finding]:
    """Return the findings about a forge with this answer; only reading requests are made."""
    receiver = Receiver(lambda method, path, body: said)
    (secrets / "forge").mkdir(exist_ok=True)
    (secrets / "forge" / "token").write_text(token)
    settings = Settings(
        secrets_dir=secrets,
        git=GitSettings(url="https://git.example/acme/environments.git"),
        commit_status=StatusSettings.model_validate({"forge": kind, "api_url": receiver.root}),
    )
    findings = list(forge.look(settings))
    receiver.close()
    assert {got.method for got in receiver.got} <= {"GET"}
    assert not any(TOKEN in f.object + f.message + f.mend for f in findings)
    return findings


def github(push: bool, scopes: str | None) -> Said:
    """Answer GitHub's `GET /repos/{owner}/{repo}`."""
    body = {"full_name": "acme/environments", "permissions": {"pull": True, "push": push}}
    headers = {**JSON, **({"X-OAuth-Scopes": scopes} if scopes is not None else {})}
    return Said(200, headers, json.dumps(body))


def gitlab(level: int) -> Said:
    """Answer GitLab's `GET /projects/{id}`."""
    rights = {"project_access": {"access_level": level}, "group_access": None}
    return Said(200, JSON, json.dumps({"id": 1, "permissions": rights}))


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("github", github(True, "repo:status"), ("ok", "Good")),
        ("github", github(True, None), ("ok", "Good")),
        ("github", github(True, "gist, read:org"), ("wrong", "ScopeMissing")),
        ("github", github(False, None), ("warning", "MayNotPush")),
        ("github", Said(401, JSON, '{"message": "Bad credentials"}'), ("wrong", "TokenRefused")),
        ("github", Said(404, JSON, '{"message": "Not Found"}'), ("wrong", "ProjectHidden")),
        ("github", Said(502, JSON, "{}"), ("unreachable", "ForgeUnreachable")),
        ("gitlab", gitlab(30), ("ok", "Good")),
        ("gitlab", gitlab(10), ("warning", "MayNotPush")),
        ("gitlab", Said(401, JSON, '{"message": "401 Unauthorized"}'), ("wrong", "TokenRefused")),
        ("gitlab", Said(404, JSON, '{"message": "404 Not Found"}'), ("wrong", "ProjectHidden")),
        ("gitlab", Said(503, JSON, "{}"), ("unreachable", "ForgeUnreachable")),
    ],
)
def test_what_a_forge_says(
    kind: str, said: Said, expected: tuple[str, str], tmp_path: Path
) -> None:
    """The real client libraries ask it."""
    assert reasons(ask(kind, said, tmp_path)) == [expected]


def test_a_forge_without_token_or_project(tmp_path: Path) -> None:
    """Both are findings; without a forge nothing is requested."""
    assert reasons(ask("github", Said(), tmp_path, "")) == [("wrong", "SecretMissing")]
    statuses = StatusSettings(forge="github")
    findings = list(forge.look(Settings(secrets_dir=tmp_path, commit_status=statuses)))
    assert reasons(findings) == [("wrong", "ProjectUnknown")]
    assert reasons(list(forge.look(Settings()))) == [("off", "NotUsed")]


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_forge_with_a_certificate_of_a_company(
    kind: str, selfmade: Selfmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported, and SSL_CERT_FILE fixes it: then the forge answers, here 501."""
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "token").write_text(TOKEN)
    settings = Settings(
        secrets_dir=tmp_path,
        commit_status=StatusSettings.model_validate(
            {"forge": kind, "api_url": selfmade.url, "project": "acme/environments"}
        ),
    )
    assert reasons(list(forge.look(settings))) == [("wrong", "CertificateWrong")]
    monkeypatch.setenv("SSL_CERT_FILE", str(selfmade.certificate))
    (finding,) = forge.look(settings)
    assert "answered 501" in finding.message
