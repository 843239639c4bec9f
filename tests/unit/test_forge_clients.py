"""Forges that send too much, too slowly or compressed: their answers have limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from requests.exceptions import RequestException

from reconciler import forge_clients

SIZE = 1 << 20
ENOUGH = 64  # times as much, at most


@contextmanager
def forge(kind: str) -> Iterator[tuple[str, list[int]]]:
    """Serve answers of a kind on loopback; yield the address, and the bytes that were sent."""
    sent = [0]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            if kind == "compressed":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            try:
                for _ in range(ENOUGH if kind == "endless" else 20):
                    part = b" " * (SIZE if kind == "endless" else 1)
                    self.wfile.write(part)
                    self.wfile.flush()
                    sent[0] += len(part)
                    time.sleep(0.0 if kind == "endless" else 0.1)
            except OSError:
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.daemon_threads = True
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}", sent
        serving.shutdown()
        thread.join(10)


def ask(which: str, url: str) -> None:
    """Ask for a project."""
    if which == "github":
        client = forge_clients.github("token", url, 10.0)
        try:
            client.get_repo("acme/environments")
        finally:
            client.close()
        return
    with forge_clients.gitlab("token", url, 10.0) as client:
        client.projects.get("acme/environments")


@pytest.mark.parametrize("which", ["github", "gitlab"])
@pytest.mark.parametrize("kind", ["endless", "slow", "compressed"])
def test_an_answer_beyond_a_limit_is_an_error(
    which: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of it is not read."""
    monkeypatch.setattr(forge_clients, "ANSWER_LIMIT", SIZE)
    monkeypatch.setattr(forge_clients, "WHOLE_TIME", 0.3 if kind == "slow" else 60.0)
    with forge(kind) as (url, sent):
        with pytest.raises(RequestException, match=r"too much|too slowly|may not"):
            ask(which, url)
        assert sent[0] < ENOUGH * SIZE
