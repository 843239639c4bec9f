"""Fake of the part of the kubelet's API that `kubectl logs` needs, over TLS on loopback."""

from __future__ import annotations

import collections
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

# (namespace, pod, container, previous) → the log file and whether the container has ended
Find = Callable[[str, str, str, bool], tuple[Path, Callable[[], bool]] | None]


class LogServer:
    """Server for `/containerLogs/<namespace>/<pod>/<container>`: follow, tailLines, previous."""

    def __init__(self, find: Find, certificate: Path, key: Path) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(find))
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)


def _handler(find: Find) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 120

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

        def do_GET(self) -> None:
            """Send a container's log."""
            url = urlsplit(self.path)
            parts = url.path.strip("/").split("/")
            asked = {key: values[-1] for key, values in parse_qs(url.query).items()}
            log = None
            if len(parts) == 4 and parts[0] == "containerLogs":
                log = find(parts[1], parts[2], parts[3], asked.get("previous") == "true")
            if log is None:
                self.send_error(404, "container not found")
                return
            path, ended = log
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            follow = asked.get("follow") == "true"
            tail = int(asked["tailLines"]) if "tailLines" in asked else None
            timed = asked.get("timestamps") == "true"
            try:
                begun = False  # a kubelet sends its headers with the first byte
                for chunk in _chunks(path, tail, follow, ended):
                    if timed:  # those of a followed log would have to be of each line's writing
                        chunk = _timed(chunk, path)
                    if not begun:
                        self.end_headers()
                        begun = True
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    self.wfile.flush()
                if not begun:
                    self.end_headers()
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True

    return Handler


def _timed(chunk: bytes, path: Path) -> bytes:
    """Lines as a kubelet sends them with their times: here, all at the file's birth."""
    moment = datetime.fromtimestamp(path.stat().st_ctime, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ")
    return b"".join(moment.encode() + line for line in chunk.splitlines(keepends=True))


def _chunks(
    path: Path, tail: int | None, follow: bool, ended: Callable[[], bool]
) -> Iterator[bytes]:
    with path.open("rb") as file:
        if tail is not None:
            last = collections.deque(file, maxlen=tail)
            yield from (line for line in last if line)
        while True:
            over = not follow or ended()  # asked before the read: nothing written since is lost
            while chunk := file.read(65536):
                yield chunk
            if over:
                return
            time.sleep(0.05)
