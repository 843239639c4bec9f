"""A certificate that nobody vouches for has a reason of its own, so that an alert can tell it."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gitsource.source import Source
from reconciler.airflow.rest import Api
from reconciler.core.definitions import Index
from reconciler.core.errors import Retryable
from reconciler.settings import GitSettings
from tests.fakes.bench import Bench


class Handler(BaseHTTPRequestHandler):
    """Never asked anything: nobody gets past the certificate."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A TLS server that does not complain of those who hang up."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A refused handshake is what is wanted here."""


@pytest.fixture
def selfmade(tmp_path: Path) -> Iterator[str]:
    """Address of a server with a certificate of its own making."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-days", "2"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_of_the_environments_repo(selfmade: str, tmp_path: Path) -> None:
    """Git's complaint becomes SourceCertificate."""
    settings = GitSettings(url=f"{selfmade}/environments.git")
    with pytest.raises(Retryable) as caught:
        Source(settings, tmp_path / "state", tmp_path / "secrets").poll()
    assert caught.value.reason == "SourceCertificate"


def test_of_an_airflow(selfmade: str) -> None:
    """A handshake that fails becomes AirflowCertificate, with the address."""
    with Api(selfmade, None) as api, pytest.raises(Retryable) as caught:
        api.pools()
    assert caught.value.reason == "AirflowCertificate"
    assert selfmade in caught.value.message


def test_of_a_private_index(selfmade: str, tmp_path: Path) -> None:
    """An index behind Groundcrew's own becomes IndexCertificate, with its name."""
    with Bench(tmp_path / "bench", allow_hosts=["localhost"]) as bench:
        corp = Index("corp", f"{selfmade}/simple/", ("acme-*",))
        with pytest.raises(Retryable) as caught:
            bench.lock(bench.recipe("acme-operators", indexes=(corp,)))
    assert caught.value.reason == "IndexCertificate"
    assert "corp" in caught.value.message


def test_of_the_index_that_uv_asks_itself(selfmade: str, tmp_path: Path) -> None:
    """Uv's own complaint becomes IndexCertificate too."""
    with (
        Bench(tmp_path / "bench", default_index=f"{selfmade}/simple/", resolve_timeout=60) as bench,
        pytest.raises(Retryable) as caught,
    ):
        bench.lock(bench.recipe("acme-operators"))
    assert caught.value.reason == "IndexCertificate"
