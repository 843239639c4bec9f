"""HTTP server in a thread of the daemon, which leaves the daemon's signal handlers alone."""

from __future__ import annotations

import logging
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette

from reconciler.api.connections import HEAD_LIMIT, Bounded, Connection
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

log = logging.getLogger(__name__)

START = 10.0  # seconds in which the server has to listen
DRAIN = 3  # seconds that open requests get to finish
STOP = 5.0  # seconds that stopping may take in total


class Server:
    """Server that listens on `host`:`port` (0: any free one, see `port` then) until `stop()`."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self.port = port
        self._server = uvicorn.Server(
            uvicorn.Config(
                Bounded(app, getattr(app.state, "is_proxy", lambda _: False)),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # `people` decides which proxy to trust
                ws="none",
                http=Connection,
                h11_max_incomplete_event_size=HEAD_LIMIT,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=DRAIN,
            )
        )
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to listen. Raises Stalled("HttpUnavailable") if the address is not available."""
        self._socket = self._listen()
        self.port = int(self._socket.getsockname()[1])
        # uvicorn leaves signal handlers alone if it does not run in the main thread.
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise Stalled(Reason.HTTP_UNAVAILABLE, "the HTTP server did not start; see the log")
            time.sleep(0.01)
        log.info("listening on http://%s:%d", self._host, self.port)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # With TCP named, asyncio sends small responses at once (TCP_NODELAY) instead of 40 ms
        # later.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._host, self.port))
        except OSError as error:
            listening.close()
            raise Stalled(
                Reason.HTTP_UNAVAILABLE,
                f"cannot listen on {self._host}:{self.port} ({error.strerror}); stop what uses it, "
                f"or set GROUNDCREW_HTTP__PORT (0: any free port)",
            ) from error
        return listening

    def _serve(self) -> None:
        assert self._socket is not None, "start() listens first"
        try:
            self._server.run(sockets=[self._socket])
        except Exception:
            log.exception("the HTTP server ended; the daemon goes on without it")

    def stop(self) -> None:
        """Let open requests finish and close; takes at most 5 s, whatever clients do."""
        close = getattr(self._app.state, "close", None)
        if close is not None:
            close()
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=STOP - 0.5)
            if self._thread.is_alive():
                self._server.force_exit = True
                self._thread.join(timeout=0.5)
        if self._socket is not None:
            self._socket.close()
