"""Limits on connections and requests: silent connections are closed, excess requests refused.

Liveness checks are answered whatever other clients do; otherwise the daemon would be restarted
because of them.
"""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENCE = 10.0  # seconds in which a connection has to send the head of a request
CONNECTIONS = 600  # at once; a further one replaces the one that was silent the longest
REQUESTS = 400  # at once, including event streams; more are answered 503
TARGET_LIMIT = 4096  # bytes of a request's path and query; a longer one is answered 414
HEAD_LIMIT = 16 << 10  # bytes of a request's line and headers
SPARED = ("/healthz", "/readyz")  # these are answered nevertheless


class Connection(H11Protocol):
    """uvicorn's protocol with a time limit until the first request is complete."""

    _silent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > CONNECTIONS:
            waiting = {
                c._silent.when(): c
                for c in self.connections
                if isinstance(c, Connection) and c._silent is not None
            }
            waiting[min(waiting)].drop()

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request; only a complete head stops the timer."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._begun()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has already arrived."""
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is answered:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._begun()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close the connection; a slow reader still gets the response."""
        self._begun()
        self.transport.close()

    def _wait(self) -> None:
        self._begun()
        self._silent = self.loop.call_later(SILENCE, self.drop)

    def _begun(self) -> None:
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None


class Bounded:
    """Middleware that refuses expensive requests before any part is read.

    It responds 503 while too many requests are open, and 414 to a URL that is too long: parsing it
    may take longer than in proportion to its length, and blocks every other thread meanwhile.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if the limits allow it."""
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET_LIMIT:
            words = {
                "reason": "BadRequest",
                "message": f"the address is longer than {TARGET_LIMIT} bytes; ask for less at once",
            }
            await JSONResponse(words, status_code=414)(scope, receive, send)
            return
        if self._open >= REQUESTS and scope["path"] not in SPARED:
            words = {"reason": "Unavailable", "message": "too many requests are open"}
            full = JSONResponse(words, status_code=503, headers={"retry-after": "10"})
            await full(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1
