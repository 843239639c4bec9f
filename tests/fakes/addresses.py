"""Web server on a loopback address that answers from a table and records its requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """Bodies served by path, or "→ address" for a redirect."""

    host: str
    pages: dict[str, str]
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The server's URL, without a slash at the end."""
        return f"http://{self.host}"


@contextmanager
def served(
    pages: Mapping[str, str] | None = None, address: str = "127.0.0.1", missing: int = 404
) -> Iterator[Served]:
    """Serve pages on a free port of an address; `missing` is the status of any other page."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            recorded.asked.append(self.path)
            body = recorded.pages.get(self.path)
            redirect = body is not None and body.startswith("→ ")
            self.send_response(missing if body is None else 302 if redirect else 200)
            if redirect and body:
                self.send_header("Location", body[2:])
                body = ""
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len((body or "").encode())))
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    server = ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    recorded = Served(f"{address}:{server.server_port}", dict(pages or {}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield recorded
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
