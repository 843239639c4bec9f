"""Untrusted certificates: each kind has a reason of its own, which an alert can match."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import certifi
import pytest

from gitsource.source import Source
from metrics.channels import Response, WebhookChannel
from metrics.commits import CommitStatus, Forge, State
from metrics.facts import Fact
from reconciler.airflow.rest import AirflowApi
from reconciler.certificates import UNTRUSTED
from reconciler.core.definitions import FileItem, Index
from reconciler.core.errors import Retryable
from reconciler.core.events import EventKind
from reconciler.core.reasons import Reason
from reconciler.settings import GitSettings, StatusSettings
from tests.harness.builder import Bench
from tests.harness.tls_server import Selfmade, serving


@pytest.fixture
def selfmade(tmp_path: Path) -> Iterator[Selfmade]:
    """Yield a server with a self-signed certificate."""
    with serving(tmp_path) as server:
        yield server


def test_of_the_environments_repo(selfmade: Selfmade, tmp_path: Path) -> None:
    """Git's error becomes SourceCertificate."""
    settings = GitSettings(url=f"{selfmade.url}/environments.git")
    with pytest.raises(Retryable) as caught:
        Source(settings, tmp_path / "state", tmp_path / "secrets").poll()
    assert caught.value.reason == Reason.SOURCE_CERTIFICATE


def test_of_the_environments_repo_once_it_is_vouched_for(
    selfmade: Selfmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git uses SSL_CERT_FILE, whatever its library: the server is asked, and has no repo."""
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(selfmade.certificate))
    settings = GitSettings(url=f"{selfmade.url}/environments.git")
    with pytest.raises(Retryable) as caught:
        Source(settings, tmp_path / "state", tmp_path / "secrets").poll()
    assert caught.value.reason == Reason.SOURCE_UNREACHABLE
    assert "501" in caught.value.message


@pytest.mark.parametrize("kind", ["github", "gitlab", "webhook"])
def test_of_who_is_told(
    kind: str, selfmade: Selfmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forge and a webhook have their own messages for it, and use SSL_CERT_FILE."""
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "token").write_text("t0ken")
    (tmp_path / "url").write_text(selfmade.url)

    def told() -> Response:
        if kind == "webhook":
            of = EventKind.DEGRADED
            fact = Fact(1, 0.0, of, "critical", "degraded", "instance/dev", "dev", "red")
            return WebhookChannel(tmp_path).send([fact])
        settings = StatusSettings.model_validate(
            {"forge": kind, "api_url": selfmade.url, "project": "o/r", "secret": "forge"}
        )
        status = CommitStatus("1" * 40, "groundcrew", State.SUCCESS, "active")
        return Forge(settings, tmp_path, "").send(status)

    assert told().words == UNTRUSTED
    monkeypatch.setenv("SSL_CERT_FILE", str(selfmade.certificate))
    assert told().words.startswith("501")


def test_of_an_airflow(selfmade: Selfmade) -> None:
    """A failed handshake becomes AirflowCertificate, with the address."""
    with AirflowApi(selfmade.url, None) as api, pytest.raises(Retryable) as caught:
        api.pools()
    assert caught.value.reason == Reason.AIRFLOW_CERTIFICATE
    assert selfmade.url in caught.value.message


def test_of_an_airflow_that_is_vouched_for_later(
    selfmade: Selfmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authorities in SSL_CERT_FILE are read again if they are replaced, without a restart."""
    file = tmp_path / "authorities.pem"
    shutil.copy(certifi.where(), file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    for text, reason in (
        (file.read_text(), "AirflowCertificate"),
        (selfmade.certificate.read_text(), "AirflowUnexpected"),
    ):
        file.write_text(text)
        with AirflowApi(selfmade.url, None) as api, pytest.raises(Retryable) as caught:
            api.pools()
        assert caught.value.reason == reason


def test_of_a_file(selfmade: Selfmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address in a definition's `files` gives FileCertificate, and uses SSL_CERT_FILE."""
    item = FileItem("0" * 64, url=f"{selfmade.url}/x", path="bin/x")
    with Bench(tmp_path / "bench", allow_hosts=["localhost"]) as bench:
        recipe = replace(bench.recipe(), files=(item,))
        for reason in ("FileCertificate", "FileUnreachable"):
            with pytest.raises(Retryable) as caught:
                bench.build(recipe)
            assert caught.value.reason == reason
            monkeypatch.setenv("SSL_CERT_FILE", str(selfmade.certificate))


def test_of_a_private_index(selfmade: Selfmade, tmp_path: Path) -> None:
    """An index behind Groundcrew's own becomes IndexCertificate, with its name."""
    with Bench(tmp_path / "bench", allow_hosts=["localhost"]) as bench:
        corp = Index("corp", f"{selfmade.url}/simple/", ("acme-*",))
        with pytest.raises(Retryable) as caught:
            bench.lock(bench.recipe("acme-operators", indexes=(corp,)))
    assert caught.value.reason == Reason.INDEX_CERTIFICATE
    assert "corp" in caught.value.message


def test_of_the_index_that_uv_asks_itself(selfmade: Selfmade, tmp_path: Path) -> None:
    """The error of uv itself becomes IndexCertificate, too."""
    with (
        Bench(
            tmp_path / "bench", default_index=f"{selfmade.url}/simple/", resolve_timeout=60
        ) as bench,
        pytest.raises(Retryable) as caught,
    ):
        bench.lock(bench.recipe("acme-operators"))
    assert caught.value.reason == Reason.INDEX_CERTIFICATE
