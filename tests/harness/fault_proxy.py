"""Proxy between a client and the API server that spoils some of the requests.

`spoil(fault, method, part, times)` spoils the next requests of a method whose path contains `part`:
409, 429 (with Retry-After: 1), 500, 401: answered with that status and not passed on; "hang": never
answered; "cut": the connection ends before the request is passed on; "lost": it is carried out and
the response is lost; "gone": a watch that begins with the error event 410; "half": a watch that
ends in the middle of an event.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import urllib3

from tests.harness.control_plane import ControlPlane

STATUS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 401: "Unauthorized"}


@dataclass(slots=True)
class Spoil:
    """Pending fault."""

    fault: int | str
    method: str
    part: str
    left: int


class FaultProxy:
    """Context manager for a proxy; use its `url` instead of the control plane's."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._spoils: list[Spoil] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.done: list[tuple[str, str, int | str]] = []  # (method, path, fault) that happened
        self._pool = urllib3.PoolManager(
            ca_certs=str(plane.certificate),
            maxsize=32,
            retries=False,
            timeout=urllib3.Timeout(connect=5, read=600),
        )
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self})
        )
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(plane.certificate, plane.key)
        # Handlers do the TLS handshake, so that a slow client blocks nobody else.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._turn_away()
        self._server.server_close()
        self._pool.clear()

    def _turn_away(self) -> None:
        """Close connections that were not served.

        Closing the listening socket alone resets them, and Python's ssl leaks a client's socket
        that is reset before the handshake.
        """
        self._server.socket.settimeout(0)
        with suppress(OSError):
            while True:
                connection, _ = self._server.socket.accept()
                connection.close()

    def spoil(self, fault: int | str, method: str, part: str, times: int = 1) -> None:
        """Spoil the next matching requests; "watch" as the method for watches."""
        with self._lock:
            self._spoils.append(Spoil(fault, method, part, times))

    @property
    def pending(self) -> list[Spoil]:
        """Return the faults that have not happened yet."""
        with self._lock:
            return [s for s in self._spoils if s.left > 0]

    def take(self, method: str, path: str) -> int | str | None:
        """Return the fault for a request, and count it."""
        kind = "watch" if "watch=true" in path else method
        with self._lock:
            for one in self._spoils:
                if one.left > 0 and one.method == kind and one.part in path:
                    one.left -= 1
                    self.done.append((kind, path, one.fault))
                    return one.fault
        return None

    def wait(self) -> None:
        """Hang until the proxy ends."""
        self._over.wait()

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        """Return the server's own response, not read yet."""
        kept = {k: v for k, v in headers.items() if k.lower() not in ("host", "connection")}
        return self._pool.request(
            method,
            self._plane.url + path,
            body=body or None,
            headers=kept,
            preload_content=False,
            decode_content=False,
        )


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        fault = self.proxy.take(self.command, self.path)
        match fault:
            case int():
                self._status(fault)
            case "hang":
                self.proxy.wait()
                self._cut()
            case "cut":
                self._cut()
            case "lost":
                self.proxy.forward(self.command, self.path, self.headers, body).read()
                self._cut()
            case "gone":
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}
                self._stream(iter([json.dumps({"type": "ERROR", "object": status}).encode()]))
            case _:
                self._pass(body, half=fault == "half")

    def _status(self, code: int) -> None:
        document = {"kind": "Status", "code": code, "reason": STATUS[code], "message": "fault"}
        data = json.dumps(document).encode()
        self.send_response(code)
        if code == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _pass(self, body: bytes, *, half: bool) -> None:
        answer = self.proxy.forward(self.command, self.path, self.headers, body)
        try:
            if "Content-Length" in answer.headers:
                data = answer.read()
                self.send_response(answer.status)
                for key in ("Content-Type", "Retry-After"):
                    if key in answer.headers:
                        self.send_header(key, answer.headers[key])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            else:
                self._stream(_chunks(answer), answer.status, half=half)
        except (OSError, urllib3.exceptions.HTTPError):
            self.close_connection = True
        finally:
            answer.close()

    def _stream(self, parts: Iterator[bytes], status: int = 200, *, half: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            data = part[: len(part) // 2] if half else part
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
            if half:
                self._cut()
                return
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _any  # noqa: N815


def _chunks(answer: Any) -> Iterator[bytes]:
    while part := answer.read1(1 << 16):
        yield part
