"""Receiver on loopback: a webhook or a forge with scripted answers, which keeps all requests.

It stands in for Slack, a JSON webhook, and GitHub's and GitLab's commit status endpoints. The paths
and bodies of the forges are those that PyGithub and python-gitlab really send.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Got:
    """Request with its response code."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    code: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Said:
    """Response to give."""

    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "ok"


class Receiver:
    """Receiver that gives each of `answers` once, and then `answer`."""

    def __init__(self, answer: Callable[[str, str, bytes], Said] | None = None) -> None:
        self.answers: list[Said] = []
        self.got: list[Got] = []
        self.answer = answer or (lambda method, path, body: Said())
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                said = (
                    receiver.answers.pop(0)
                    if receiver.answers
                    else receiver.answer(self.command, self.path, body)
                )
                headers = {k.lower(): v for k, v in self.headers.items()}
                receiver.got.append(Got(self.command, self.path, headers, body, said.code))
                text = said.body.encode()
                self.send_response(said.code)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = _serve  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{self.root}/services/s3cret-address"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def taken(self) -> list[Any]:
        """Return the JSON bodies that were accepted."""
        return [g.json for g in self.got if 200 <= g.code < 300 and g.body]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5.0)


def github(method: str, path: str, body: bytes) -> Said:
    """Answer GitHub's `POST /repos/{owner}/{repo}/statuses/{sha}`, and the read of its commit."""
    if method == "POST" and "/statuses/" in path:
        status = json.loads(body)
        return Said(201, JSON, json.dumps({"id": 1, "url": "", **status}))
    sha = path.rpartition("/")[2]
    return Said(200, JSON, json.dumps({"sha": sha, "url": path}))


def gitlab(method: str, path: str, body: bytes) -> Said:
    """Answer GitLab's `POST /api/v4/projects/{id}/statuses/{sha}`."""
    if method == "POST" and "/statuses/" in path:
        status = json.loads(body)
        return Said(201, JSON, json.dumps({"id": 1, "status": status["state"], **status}))
    return Said(404, JSON, '{"message": "404 Not Found"}')


JSON = {"Content-Type": "application/json"}
