"""Limits on connections and requests: silent connections are closed, excess requests refused.

Liveness checks are answered whatever other clients do; otherwise the daemon would be restarted
because of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import anyio.to_thread
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconciler.api.admission import Admission
from reconciler.core.reasons import Reason

SILENCE = 10.0  # seconds in which a connection has to send the head of a request
CONNECTIONS = 600  # at once; a further one replaces a silent one of the client that has most
REQUESTS = 400  # at once, including event streams; more are answered 503
TARGET_LIMIT = 4096  # bytes of a request's path and query; a longer one is answered 414
HEAD_LIMIT = 16 << 10  # bytes of a request's line and headers
COOKIES_LIMIT = 4096  # bytes; reading cookies may take longer than in proportion to them
PAUSE = 2.0  # seconds before a client that asks too often is refused
SPARED = ("/healthz", "/readyz")  # these are answered nevertheless
SPARED_PAUSE = 0.5  # seconds before these are answered to a client that asks too often
THREADS = 8  # for pages and the API: each may hold the interpreter's lock in its turn


class Connection(H11Protocol):
    """uvicorn's protocol with a time limit until the first request is complete."""

    _silent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > CONNECTIONS:
            _longest_silent([c for c in self.connections if isinstance(c, Connection)]).drop()

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


def _longest_silent(connections: list[Connection]) -> Connection:
    """Return the connection to close: of the client that has most, if one of its is silent."""
    silent = [c for c in connections if c._silent is not None]
    counts = Counter(c.client[0] if c.client else "" for c in connections)
    (most, _), *_ = counts.most_common(1)
    own = [c for c in silent if c.client and c.client[0] == most]
    return min(own or silent, key=lambda c: c._silent.when() if c._silent else 0.0)


class Bounded:
    """Middleware that refuses expensive requests before any part is read.

    It responds 414 to a URL and 431 to cookies that are too long: parsing them may take longer than
    in proportion to their length, and blocks every other thread meanwhile. It responds 503 while
    too many requests are open, and 429 to a client that has too many open or asks too often.
    """

    def __init__(self, app: ASGIApp, is_proxy: Callable[[str], bool] = lambda _: False) -> None:
        self._app = app
        self._open = 0
        self._admission = Admission(is_proxy, time.monotonic())
        self._prepared = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if the limits allow it."""
        if not self._prepared:
            anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
            self._prepared = True
        client = self._admission.client(scope)
        refusal = self._refuse(scope, client)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self._open += 1
        self._admission.enter(client)
        try:
            await (await self._admitted(scope, client))(scope, receive, send)
        finally:
            self._open -= 1
            self._admission.leave(client)

    def _refuse(self, scope: Scope, client: str) -> ASGIApp | None:
        """Return the response to a request that is too long, or that there is no room for."""
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET_LIMIT:
            return _refusal(
                414,
                Reason.BAD_REQUEST,
                f"the address is longer than {TARGET_LIMIT} bytes; ask for less at once",
            )
        if sum(len(value) for name, value in scope["headers"] if name == b"cookie") > COOKIES_LIMIT:
            message = f"the cookies have more than {COOKIES_LIMIT} bytes; delete some"
            return _refusal(431, Reason.BAD_REQUEST, message)
        if scope["path"] in SPARED:
            return None
        if self._open >= REQUESTS:
            return _refusal(503, Reason.UNAVAILABLE, "too many requests are open")
        if not self._admission.has_room(client):
            return _refusal(429, Reason.TOO_MANY_REQUESTS, "this client has too many requests open")
        return None

    async def _admitted(self, scope: Scope, client: str) -> ASGIApp:
        """Return the application, or a refusal, late, if too much is asked in a short time."""
        spared = scope["path"] in SPARED
        if self._admission.take(client, time.monotonic(), spared=spared):
            return self._app
        await asyncio.sleep(SPARED_PAUSE if spared else PAUSE)
        if spared:
            return self._app
        return _refusal(
            429, Reason.TOO_MANY_REQUESTS, "too many requests in a short time; ask less often"
        )


def _refusal(status: int, reason: Reason, message: str) -> ASGIApp:
    headers = {"retry-after": "10"} if status in (429, 503) else {}
    return JSONResponse({"reason": reason, "message": message}, status, headers)
