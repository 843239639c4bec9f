"""Fake of the parts of Airflow's REST API that activations use, 2.x and 3.x, with faults.

Compared with real Airflows by `tests/e2e/test_fake_is_true.py`. It lives in the test's process and
keeps its state while a daemon is killed and started. A component that starts posts to
`restart_url`, or to `/_fake/restart/<component>` with `restart_command`: that renews its heartbeat,
and for the dag-processor the DAGs' parse times.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

USER, PASSWORD = "groundcrew", "pa55-w0rd-of-the-test"
TOKEN = "token-of-the-test"
PAGE = "<!doctype html><html><body>the user interface</body></html>"
POST = "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], b'{}'), timeout=20)"
Answer = tuple[int, str, bytes]  # status (0: hang up), content type, body


def iso(at: float) -> str:
    """Return a time in Airflow's format."""
    return datetime.fromtimestamp(at, UTC).isoformat()


@dataclass
class State:
    """Current state of the fake Airflow, which a test may change."""

    pools: dict[str, int] = field(default_factory=lambda: {"default_pool": 128, "small": 3})
    busy: int = 0
    dags: dict[str, float] = field(default_factory=lambda: {"hello": 1.0})  # id → parsed at
    stale: set[str] = field(default_factory=set)  # ids of DAGs that are no longer there
    # file → (trace, at); 3.x: relative to its bundle, "bundle:file" for another than dags-folder
    errors: dict[str, tuple[str, float]] = field(default_factory=dict)
    heartbeats: dict[str, float] = field(default_factory=dict)
    unhealthy: set[str] = field(default_factory=set)
    restarts: dict[str, str] = field(default_factory=dict)  # component → "refused" or "silent"
    loaded: list[dict[str, str]] = field(default_factory=list)  # reports of started components
    plugins: list[str] = field(default_factory=list)
    loose_plugins: list[str] = field(default_factory=list)  # sources of those in no distribution
    providers: dict[str, str] = field(default_factory=dict)  # name → version
    patched: list[tuple[str, int]] = field(default_factory=list)
    fault: str = ""  # "drop", "slow", "html", "not-json", or a status: "401", "422", "500", …
    fault_on: str = ""  # only requests whose path contains this
    slow: float = 3.0  # seconds
    token: str = TOKEN  # once it is another, TOKEN has ended


class FakeAirflow:
    """Server on loopback while it is entered; `airflow` is "2" or "3"."""

    def __init__(self, airflow: str = "3", page: int = 100) -> None:
        self.state = State()
        self.airflow = airflow
        self.page = page
        self.clock: Callable[[], float] = time.time
        self.on_restart: Callable[[dict[str, str]], None] = lambda _: None
        self._three = airflow == "3"
        self._prefix = "/api/v2" if self._three else "/api/v1"
        now = time.time()
        for section in ("scheduler", "triggerer", "dag_processor"):
            self.state.heartbeats[section] = now
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def restart_url(self) -> str:
        """The URL at which a starting component reports."""
        return f"{self.url}/_fake/restart"

    def restart_command(self, component: str) -> tuple[str, ...]:
        """Return the command that restarts a component of this Airflow."""
        return (sys.executable, "-ISc", POST, f"{self.restart_url}/{component}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    # ------------------------------------------------------------------------------- answers

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        """Return the response to a request."""
        url = urlsplit(target)
        if url.path.startswith("/_fake/restart"):
            named = url.path.removeprefix("/_fake/restart").lstrip("/")
            return self._restarted({**({"component": named} if named else {}), **json.loads(body)})
        faulty = self._faulty(url.path, body) if self.state.fault_on in url.path else None
        if faulty is not None:
            return faulty
        if url.path == f"{self._prefix}/version":
            return _json(200, {"version": "3.3.2" if self._three else "2.11.2", "git_version": ""})
        if url.path == ("/api/v2/monitor/health" if self._three else "/health"):
            return _json(200, self._health())
        if self._three and url.path == "/auth/token" and method == "POST":
            return self._login(json.loads(body))
        if not url.path.startswith(self._prefix + "/"):
            return self._unknown(url.path)
        path = url.path.removeprefix(self._prefix)
        listings = self._listings()
        if path not in listings and not path.startswith("/pools/"):
            return self._error(404, "API route not found")
        refused = self._refused(headers.get("Authorization") or "")
        if refused is not None:
            return refused
        if path.startswith("/pools/"):
            return self._pool(method, path.removeprefix("/pools/"), parse_qs(url.query), body)
        return self._list(*listings[path], parse_qs(url.query))

    def _faulty(self, path: str, body: bytes) -> Answer | None:
        fault = self.state.fault
        if fault == "drop":
            return 0, "", b""
        if fault == "slow":
            time.sleep(self.state.slow)
        if fault == "html":
            return 200, "text/html; charset=utf-8", PAGE.encode()
        if fault == "not-json":
            return 200, "application/json", b'{"cut of'
        if fault.isdigit():
            return _json(int(fault), {"detail": f"a fault of the test; input={body.decode()}"})
        return None

    def _unknown(self, path: str) -> Answer:
        if self._three and path.startswith(("/api/", "/health")):
            return _json(404, {"error": "API route not found"})
        return (200 if self._three else 404), "text/html; charset=utf-8", PAGE.encode()

    def _refused(self, authorization: str) -> Answer | None:
        if not self._three:
            basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            return None if authorization == f"Basic {basic}" else self._error(403, "Forbidden")
        if not authorization:
            return _json(401, {"detail": "Not authenticated"})
        if authorization == f"Bearer {TOKEN}" != f"Bearer {self.state.token}":
            return _json(401, {"detail": "Token Expired"})
        if authorization != f"Bearer {self.state.token}":
            return _json(403, {"detail": "Invalid JWT token"})
        return None

    def _login(self, asked: dict[str, Any]) -> Answer:
        if set(asked) != {"username", "password"}:
            return _json(422, {"detail": f"validation errors, input_value={asked}"})
        if (asked["username"], asked["password"]) != (USER, PASSWORD):
            return _json(401, {"detail": "Invalid credentials"})
        return _json(201, {"access_token": self.state.token})

    def _error(self, code: int, words: str) -> Answer:
        if self._three:
            return _json(code, {"error" if words.startswith("API") else "detail": words})
        return (
            code,
            "application/problem+json",
            json.dumps({"detail": words, "status": code, "title": words, "type": ""}).encode(),
        )

    def _restarted(self, said: dict[str, str]) -> Answer:
        now = self.clock()
        state, how = self.state, self.state.restarts.get(said["component"], "")
        if how == "refused":
            return _json(500, {"detail": "it does not start"})
        state.loaded.append(said)
        self.on_restart(said)
        section = said["component"].replace("-", "_")
        if section in state.heartbeats and how != "silent":
            state.heartbeats[section] = now
            if section in ({"dag_processor"} if self._three else {"dag_processor", "scheduler"}):
                state.dags = dict.fromkeys(state.dags, now)
        return _json(200, {})

    def _health(self) -> dict[str, Any]:
        bad = self.state.unhealthy
        health: dict[str, Any] = {
            "metadatabase": {"status": "unhealthy" if "metadatabase" in bad else "healthy"}
        }
        for section, at in self.state.heartbeats.items():
            status = "unhealthy" if section in bad else "healthy"
            health[section] = {"status": status, f"latest_{section}_heartbeat": iso(at)}
        return health

    # --------------------------------------------------------------------------------- pools

    def _pool(self, method: str, raw: str, query: dict[str, list[str]], body: bytes) -> Answer:
        name, pools = unquote(raw), self.state.pools
        if name not in pools or ("/" in name and not self._three):
            return self._error(404, f"Pool with name:'{name}' not found")
        if method == "PATCH":
            asked = json.loads(body)
            wrong = self._refused_body(name, asked, query.get("update_mask", []))
            if wrong is not None:
                return wrong
            pools[name] = int(asked["slots"])
            self.state.patched.append((name, pools[name]))
        if not self._three and pools[name] < 0:
            return self._unlimited()
        return _json(200, _row(name, pools[name]))

    def _refused_body(self, name: str, asked: dict[str, Any], mask: list[str]) -> Answer | None:
        """Return an error like 3.3, which wants every field of a pool except the default one."""
        if not self._three:
            unnamed = name == "default_pool" and asked.get("name") != name and mask != ["slots"]
            return self._error(400, "Default Pool's name can't be modified") if unnamed else None
        if asked.get("name", name) != name:
            return self._error(400, "Invalid body, pool name doesn't match uri parameter")
        if name == "default_pool":
            return None if mask == ["slots"] else self._error(400, "Only slots can be modified")
        missing = [f for f in ("name", "slots", "include_deferred") if f not in asked]
        details = [{"type": "missing", "loc": [f], "input": asked} for f in missing]
        return _json(422, {"detail": details}) if missing else None

    def _unlimited(self) -> Answer:
        """Return an error like 2.x, whose answer for an unlimited pool violates its own schema."""
        message = "Response body does not conform to specification: inf is not of type 'integer'"
        return self._error(500, message)

    # ------------------------------------------------------------------------------ listings

    def _list(self, key: str, rows: list[Any], query: dict[str, list[str]]) -> Answer:
        if key == "pools" and not self._three and min(self.state.pools.values()) < 0:
            return self._unlimited()
        begin = int(query.get("offset", ["0"])[0])
        count = min(self.page, int(query.get("limit", ["100"])[0]))
        return _json(200, {key: rows[begin : begin + count], "total_entries": len(rows)})

    def _listings(self) -> dict[str, tuple[str, list[Any]]]:
        state = self.state
        return {
            "/pools": ("pools", [_row(n, s) for n, s in state.pools.items()]),
            "/dags/~/dagRuns/~/taskInstances": ("task_instances", [{}] * state.busy),
            "/importErrors": ("import_errors", [self._broken(f) for f in state.errors]),
            "/dags": ("dags", [self._dag(n) for n in state.dags if n not in state.stale]),
            "/plugins": (
                "plugins",
                [
                    {"name": n, "source": f"{n}==1.0: EntryPoint(name='{n}', value='{n}')"}
                    for n in state.plugins
                ]
                + [{"name": "loose", "source": source} for source in state.loose_plugins],
            ),
            "/providers": (
                "providers",
                [
                    {"package_name": name, "description": name, "version": version}
                    for name, version in state.providers.items()
                ],
            ),
        }

    def _broken(self, file: str) -> dict[str, Any]:
        trace, at = self.state.errors[file]
        row = {"import_error_id": 1, "filename": file, "stack_trace": trace, "timestamp": iso(at)}
        if self._three:
            bundle, _, relative = file.rpartition(":")
            row |= {"filename": relative, "bundle_name": bundle or "dags-folder"}
        return row

    def _dag(self, name: str) -> dict[str, Any]:
        row = {
            "dag_id": name,
            "fileloc": f"/dags/{name}.py",
            "last_parsed_time": iso(self.state.dags[name]),
        }
        if self._three:
            row |= {"relative_fileloc": f"{name}.py", "bundle_name": "dags-folder"}
        return row


def _handler(fake: FakeAirflow) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, kind, data = fake.answer(self.command, self.path, self.headers, body)
            if code == 0:
                self.close_connection = True
                return
            try:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except ConnectionError:
                self.close_connection = True  # the client did not wait for a slow response

        do_GET = do_POST = do_PATCH = _any  # noqa: N815

    return Handler


def _row(name: str, slots: int) -> dict[str, Any]:
    return {"name": name, "slots": slots, "include_deferred": False}


def _json(code: int, document: object) -> Answer:
    return code, "application/json", json.dumps(document).encode()
