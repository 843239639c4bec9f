"""What connections and requests may cost: those that send nothing are let go, too many refused.

Whoever asks whether the daemon lives is answered whatever the others do, or it would be restarted
for their sake.
"""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENCE = 10.0  # seconds in which a connection has to send the head of a request
CONNECTIONS = 600  # at once; a further one takes the place of that which was silent the longest
REQUESTS = 400  # at once, event streams among them; more are answered 503
TARGET_LIMIT = 4096  # bytes of a request's path and query; a longer one is answered 414
HEAD_LIMIT = 16 << 10  # bytes of a request's line and headers
SPARED = ("/healthz", "/readyz")  # these are answered nevertheless


class Connection(H11Protocol):
    """uvicorn's, which lets a client be silent for ever before its first request is complete."""

    _silent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
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
        """Take a part of a request; what is not its whole head prolongs nothing."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._begun()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has come already."""
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is answered:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._begun()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close it; a slow reader still gets what was answered."""
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
    """Refuses what would cost too much before any of it is read.

    That is 503 while too many requests are open, and 414 for an address that is too long: what
    parses it may take longer than in proportion to it, and holds up every other thread meanwhile.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if there is room."""
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
