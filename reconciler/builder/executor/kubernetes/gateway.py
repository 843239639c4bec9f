"""HTTP server for the indexes of running builds, each below its own secret path, for Jobs.

A Job gets no credentials: the daemon has them (see `proxy`), and its URL works only while the build
runs, for that build's indexes.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from reconciler.builder.index.proxy import Indexes
from reconciler.builder.index.server import LoggedErrors, send
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

LOOPBACK = "127.0.0.1"


class Gateway:
    """HTTP server for all Jobs, started with the first build that needs it.

    It listens on the pod's address (`POD_IP`), or on loopback if there is none. Raises
    Stalled("IndexPortTaken") if it cannot listen.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._host = os.environ.get("POD_IP", LOOPBACK)
        self._served: dict[str, Indexes] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @contextmanager
    def serving(self, indexes: Indexes, host: str = "") -> Iterator[str]:
        """Serve indexes; yield the URL of their simple API, at `host` if given."""
        server = self._started()
        key = secrets.token_urlsafe(24)
        self._served[key] = indexes
        name = host or self._host
        shown = f"[{name}]" if ":" in name else name
        try:
            yield f"http://{shown}:{server.server_port}/{key}{indexes.path}"
        finally:
            self._served.pop(key, None)

    def _started(self) -> ThreadingHTTPServer:
        with self._lock:
            if self._server is None:
                try:
                    self._server = _Server((self._host, self._port), _handler(self._served))
                except OSError as error:
                    raise Stalled(
                        Reason.INDEX_PORT_TAKEN,
                        f"cannot listen on {self._host}:{self._port} for the Jobs of builds "
                        f"({error.strerror}); set kubernetes.jobs.index_port",
                    ) from error
                threading.Thread(
                    target=self._server.serve_forever, args=(0.1,), name="gateway", daemon=True
                ).start()
            return self._server

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(LoggedErrors, ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def _handler(served: dict[str, Indexes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds that a silent connection is kept

        def do_GET(self) -> None:
            key, _, rest = urlsplit(self.path).path.lstrip("/").partition("/")
            indexes = served.get(key)
            if indexes is None:
                send(self, 404, b"", "text/plain")
            else:
                indexes.answer(self, rest, f"http://{self.headers['Host']}/{key}")

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing, because the path contains the build's secret."""

    return Handler
