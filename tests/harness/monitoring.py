"""Real Prometheus and real Alertmanager on loopback, and a sink for what they send.

They read the rules and the examples of `deploy/prometheus` unchanged, except for addresses, the
name of a team and the intervals.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
PROGRAMS = ("prometheus", "prometheus-alertmanager")
PATIENCE = 120  # seconds to wait for a program or an observation
QUICK = "1s"
NAMESPACE = "groundcrew"  # of the scraped daemon


def missing() -> list[str]:
    """Return the programs that are not on this machine."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def until(what: Callable[[], object], words: str) -> Any:
    """Return the first true result of `what`. Raises AssertionError if there is none in time."""
    deadline = time.monotonic() + PATIENCE
    while not (outcome := what()):
        assert time.monotonic() < deadline, f"{words}: not in {PATIENCE} s"
        time.sleep(0.2)
    return outcome


class Sink:
    """Webhooks that were received: (path, document), oldest first."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.received.append((self.path, json.loads(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def alerts(self, path: str, name: str, status: str) -> list[dict[str, Any]]:
        """Return the alerts of a name and status ("firing", "resolved") received at a path."""
        return [
            alert
            for where, document in list(self.received)
            for alert in document["alerts"]
            if where == path and alert["labels"]["alertname"] == name and alert["status"] == status
        ]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Watch:
    """Running Prometheus, with an Alertmanager that sends to `sink`."""

    url: str
    sink: Sink
    logs: list[Path] = field(default_factory=list)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the current series of an expression."""
        return self._ask("query", query=expression)

    def query_range(self, expression: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """Return the series of an expression in the last `seconds`."""
        now = time.time()
        return self._ask("query_range", query=expression, start=now - seconds, end=now, step=step)

    def _ask(self, what: str, **query: object) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=query, timeout=20)  # type: ignore[arg-type]
        document = answer.json()
        assert document["status"] == "success", f"{query['query']}: {document}"
        series: list[dict[str, Any]] = document["data"]["result"]
        return series


@contextmanager
def watching(root: Path, target: str, team: str) -> Iterator[Watch]:
    """Watch the daemon at `target` ("host:port"); alerts of `team` go to the sink's /`team`."""
    sink = Sink()
    root.mkdir()
    prometheus, alertmanager = _free_port(), _free_port()
    _configure_alertmanager(root / "alertmanager.yaml", sink.port, team)
    _configure_prometheus(root / "prometheus.yaml", target, alertmanager)
    programs = [
        [
            "prometheus-alertmanager",
            f"--config.file={root / 'alertmanager.yaml'}",
            f"--storage.path={root / 'alerts'}",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{alertmanager}",
        ],
        [
            "prometheus",
            f"--config.file={root / 'prometheus.yaml'}",
            f"--storage.tsdb.path={root / 'series'}",
            f"--web.listen-address=127.0.0.1:{prometheus}",
        ],
    ]
    watch = Watch(f"http://127.0.0.1:{prometheus}", sink)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command, port in zip(programs, (alertmanager, prometheus), strict=True):
            log = root / f"{command[0]}.log"
            watch.logs.append(log)
            with log.open("wb") as out:
                running.append(subprocess.Popen(command, stdout=out, stderr=out))
            until(lambda port=port: _ready(port), f"{command[0]} is ready; see {log}")  # type: ignore[misc]
        yield watch
    finally:
        for program in reversed(running):
            program.terminate()
        for program in running:
            program.wait(timeout=30)
        sink.close()


def _configure_prometheus(path: Path, target: str, alertmanager: int) -> None:
    document = yaml.safe_load((DEPLOY / "examples" / "prometheus.yaml").read_text())
    document["global"] = {"scrape_interval": QUICK, "evaluation_interval": QUICK}
    document["rule_files"] = [str(DEPLOY / "rules.yaml")]
    (configured,) = document["scrape_configs"]
    labels = {"namespace": NAMESPACE}  # as the chart's ServiceMonitor adds it
    configured["static_configs"][0] |= {"targets": [target], "labels": labels}
    (managers,) = document["alerting"]["alertmanagers"]
    managers["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    path.write_text(yaml.safe_dump(document))


def _configure_alertmanager(path: Path, sink: int, team: str) -> None:
    text = (DEPLOY / "examples" / "alertmanager.yaml").read_text()
    text = text.replace("127.0.0.1:9095", f"127.0.0.1:{sink}").replace("analytics", team)
    document = yaml.safe_load(text)
    document["route"] |= {"group_wait": QUICK, "group_interval": QUICK}
    path.write_text(yaml.safe_dump(document))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
