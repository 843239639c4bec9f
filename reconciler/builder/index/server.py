"""HTTP servers of the index proxy, and complete responses."""

from __future__ import annotations

import logging
import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

log = logging.getLogger(__name__)


class LoggedErrors(socketserver.BaseServer):
    """Server that logs what goes wrong in a request, unless the client just went away."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Log the current exception instead of printing it."""
        del request, client_address
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            log.error("unexpected error in a request for an index", exc_info=error)


class OnSocket(LoggedErrors, socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Server on a unix socket."""

    daemon_threads = True


class OnLoopback(LoggedErrors, ThreadingHTTPServer):
    """Server on a port of loopback."""


def send(handler: BaseHTTPRequestHandler, code: int, body: bytes, kind: str) -> None:
    """Send a complete response."""
    handler.send_response(code)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
