"""TLS server with a self-signed certificate."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.harness.certificates import make_certificate


@dataclass(frozen=True)
class Selfmade:
    """URL of the server, and the file of the only authority that trusts it: itself."""

    url: str
    certificate: Path


class Handler(BaseHTTPRequestHandler):
    """Handler that answers 501 to clients that accept the certificate: nothing is implemented."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """TLS server that does not complain about clients that hang up."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a failed handshake, which is expected here."""


@contextmanager
def serving(folder: Path) -> Iterator[Selfmade]:
    """Serve on loopback; key and certificate are written into `folder`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make_certificate(certificate, key, "localhost", "DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Selfmade(f"https://localhost:{server.server_address[1]}", certificate)
    server.shutdown()
    server.server_close()
