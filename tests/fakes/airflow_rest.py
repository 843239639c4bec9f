"""The part of Airflow's REST API that activations use, 2.x and 3.x, in memory, with faults.

Checked against real Airflows by `tests/e2e/test_fake_is_true.py`. A component that starts posts to
`restart_url`, which renews its heartbeat and the DAGs' parse times.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "groundcrew", "pa55-w0rd-of-the-test"
TOKEN = "token-of-the-test"
PAGE = "<!doctype html><html><body>the user interface</body></html>"


def iso(at: float) -> str:
    """A time as Airflow writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


@dataclass
class State:
    """What the fake Airflow is like now; a test changes it as it likes."""

    pools: dict[str, int] = field(default_factory=lambda: {"default_pool": 128, "small": 3})
    busy: int = 0
    dags: dict[str, float] = field(default_factory=lambda: {"hello": 1.0})  # id → parsed at
    errors: dict[str, tuple[str, float]] = field(default_factory=dict)  # file → (trace, at)
    heartbeats: dict[str, float] = field(default_factory=dict)
    unhealthy: set[str] = field(default_factory=set)
    loaded: list[dict[str, str]] = field(default_factory=list)  # what started components said
    plugins: list[str] = field(default_factory=list)
    providers: list[str] = field(default_factory=list)
    patched: list[tuple[str, int]] = field(default_factory=list)
    fault: str = ""  # "401", "403", "429", "500", "html", "slow", "drop", "not-json"


class FakeAirflow:
    """Serves on loopback while it is entered; `airflow` is "2" or "3"."""

    def __init__(self, airflow: str = "3", page: int = 100) -> None:
        self.state = State()
        self.airflow = airflow
        self.page = page
        self.on_restart: Callable[[dict[str, str]], None] = lambda _: None
        now = time.time()
        for section in ("scheduler", "triggerer", "dag_processor"):
            self.state.heartbeats[section] = now
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

            def _any(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                code, kind, data = fake._answer(self.command, self.path, self.headers, body)
                if code == 0:
                    self.close_connection = True
                    return
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = _any  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def restart_url(self) -> str:
        """Where a starting component reports."""
        return f"{self.url}/_fake/restart"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    # ------------------------------------------------------------------------------- answers

    def _answer(
        self, method: str, target: str, headers: Any, body: bytes
    ) -> tuple[int, str, bytes]:
        url = urlsplit(target)
        if url.path == "/_fake/restart":
            return self._restarted(json.loads(body))
        faulty = self._faulty()
        if faulty is not None:
            return faulty
        prefix = "/api/v2" if self.airflow == "3" else "/api/v1"
        health = "/api/v2/monitor/health" if self.airflow == "3" else "/health"
        if url.path == f"{prefix}/version":
            return _json(200, {"version": "3.3.2" if self.airflow == "3" else "2.11.2"})
        if url.path == health:
            return _json(200, self._health())
        if self.airflow == "3" and url.path == "/auth/token" and method == "POST":
            asked = json.loads(body)
            if (asked.get("username"), asked.get("password")) != (USER, PASSWORD):
                return _json(401, {"detail": "Invalid credentials"})
            return _json(201, {"access_token": TOKEN})
        if not url.path.startswith(prefix + "/"):
            return (200 if self.airflow == "3" else 404), "text/html", PAGE.encode()
        if not self._allowed(headers.get("Authorization") or ""):
            return _json(401, {"detail": "Not authenticated"})
        query = parse_qs(url.query)
        return self._api(method, url.path.removeprefix(prefix), query, body)

    def _faulty(self) -> tuple[int, str, bytes] | None:
        fault = self.state.fault
        if fault == "drop":
            return 0, "", b""
        if fault == "slow":
            time.sleep(3)
        if fault == "html":
            return 200, "text/html", PAGE.encode()
        if fault == "not-json":
            return 200, "application/json", b'{"cut of'
        if fault.isdigit():
            return _json(int(fault), {"detail": "a fault of the test"})
        return None

    def _allowed(self, authorization: str) -> bool:
        if self.airflow == "3":
            return authorization == f"Bearer {TOKEN}"
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return authorization == f"Basic {basic}"

    def _restarted(self, said: dict[str, str]) -> tuple[int, str, bytes]:
        now = time.time()
        self.state.loaded.append(said)
        self.on_restart(said)
        section = said["component"].replace("-", "_")
        if section in self.state.heartbeats:
            self.state.heartbeats[section] = now
        if section == "dag_processor":
            self.state.dags = {name: now for name in self.state.dags}
        return _json(200, {})

    def _health(self) -> dict[str, Any]:
        found: dict[str, Any] = {"metadatabase": {"status": "healthy"}}
        for section, at in self.state.heartbeats.items():
            status = "unhealthy" if section in self.state.unhealthy else "healthy"
            found[section] = {"status": status, f"latest_{section}_heartbeat": iso(at)}
        return found

    def _api(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, str, bytes]:
        state = self.state
        if method == "PATCH" and path.startswith("/pools/"):
            name = path.removeprefix("/pools/")
            if name not in state.pools:
                return _json(404, {"detail": "no such pool"})
            state.pools[name] = int(json.loads(body)["slots"])
            state.patched.append((name, state.pools[name]))
            return _json(200, {"name": name, "slots": state.pools[name]})
        listings: dict[str, tuple[str, list[Any]]] = {
            "/pools": ("pools", [{"name": n, "slots": s} for n, s in state.pools.items()]),
            "/dags/~/dagRuns/~/taskInstances": ("task_instances", [{}] * state.busy),
            "/importErrors": (
                "import_errors",
                [
                    {"filename": file, "stack_trace": trace, "timestamp": iso(at)}
                    for file, (trace, at) in state.errors.items()
                ],
            ),
            "/dags": (
                "dags",
                [
                    {"dag_id": n, "fileloc": f"/dags/{n}.py", "last_parsed_time": iso(at)}
                    for n, at in state.dags.items()
                ],
            ),
            "/plugins": ("plugins", [{"name": n} for n in state.plugins]),
            "/providers": ("providers", [{"package_name": n} for n in state.providers]),
        }
        if path not in listings:
            return _json(404, {"detail": "Not Found"})
        key, rows = listings[path]
        begin = int(query.get("offset", ["0"])[0])
        count = min(self.page, int(query.get("limit", ["100"])[0]))
        return _json(200, {key: rows[begin : begin + count], "total_entries": len(rows)})


def _json(code: int, document: object) -> tuple[int, str, bytes]:
    return code, "application/json", json.dumps(document).encode()
