"""Server-sent events: notifications of changes, and a build's log as it grows.

One read of the records per second serves all open streams. A stream buffers nothing for its reader:
a slow reader is notified less often, and one that reads nothing is disconnected.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reconciler.api.share_reader import Part
from reconciler.api.view import View
from reconciler.core.errors import GroundcrewError
from reconciler.store.store import Store

log = logging.getLogger(__name__)

MOST = 150  # open streams; more are answered 503
LOOK = 1.0  # seconds between two reads of the records
BEAT = 15.0  # seconds after which a quiet stream sends a sign of life
PATIENCE = 30.0  # seconds in which a reader has to accept what is sent
CHUNK = 1 << 15  # bytes of a log in one message
BEHIND = 1 << 18  # bytes; a log's reader who is further behind continues from the end
RETRY = b"retry: 3000\n\n"  # milliseconds until a browser reconnects

Reading = Callable[[int, int], Awaitable[Part | None]]  # like `Shelf.log` for one build


class EventStream(Response):
    """Response that sends `messages` until they end or the reader leaves or stops reading."""

    def __init__(self, streams: Streams, messages: AsyncIterator[bytes]) -> None:
        super().__init__(
            headers={
                "content-type": "text/event-stream",
                "cache-control": "no-store",
                "x-accel-buffering": "no",
            }
        )
        del self.headers["content-length"]
        self._streams = streams
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end; the stream counts as open all the time."""
        del scope
        with self._streams.counted():
            sending = asyncio.create_task(self._send(send))
            going = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait({sending, going}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, going):
                    task.cancel()
                results = await asyncio.gather(sending, going, return_exceptions=True)
        error = results[0]
        if isinstance(error, Exception) and not isinstance(error, TimeoutError | OSError):
            raise error

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._body(send, RETRY)
        async for message in self._messages:
            await self._body(send, message)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _body(self, send: Send, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await send({"type": "http.response.body", "body": data, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Streams:
    """Factory of event streams; `close()`, from any thread, ends them."""

    def __init__(self, store: Store, view: View) -> None:
        self._store = store
        self._view = view
        self._turn = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.Task[None] | None = None
        self._seen = (0, 0)  # (number of the view's change, id of the newest event)
        self._closed = False
        self.open = 0

    def close(self) -> None:
        """End every stream soon."""
        self._closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._turn.set)

    def counted(self) -> _Counted:
        """Return a context in which a stream counts as open."""
        return _Counted(self)

    def room(self) -> None:
        """Raise HTTPException 503 if too many streams are open."""
        if self.open >= MOST or self._closed:
            raise HTTPException(503, "too many event streams are open", {"retry-after": "10"})

    # ---------------------------------------------------------------------------------- changes

    async def changes(self) -> AsyncIterator[bytes]:
        """Yield a `changed` message with the newest event's id for each read that found changes."""
        self._start()
        told = (0, 0)
        while not self._closed:
            if told != self._seen:
                told = self._seen
                yield message("changed", {"event": told[1]}, str(told[1]))
            elif not await self._next():
                yield b": alive\n\n"

    async def _next(self) -> bool:
        """Wait for the next read; return False if nothing was found for a while."""
        try:
            async with asyncio.timeout(BEAT):
                await self._turn.wait()
        except TimeoutError:
            return False
        return True

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look_on())

    async def _look_on(self) -> None:
        """Read while streams are open, and wake them when something has changed."""
        while self.open and not self._closed:
            try:
                latest = await run_in_threadpool(self._look)
            except GroundcrewError as error:
                log.warning("the event streams: %s", error)
                latest = self._seen
            if latest != self._seen:
                self._seen = latest
                turn, self._turn = self._turn, asyncio.Event()
                turn.set()
            await asyncio.sleep(LOOK)

    def _look(self) -> tuple[int, int]:
        return self._view.now().change, self._store.last_event_id()

    # -------------------------------------------------------------------------------------- log

    async def log(
        self, read: Reading, begin: int, ended: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Yield what is added to a log after its byte `begin`: `text` messages, then one `end`.

        Each `text` has the id at which to continue. A log that was started again sends `anew`
        first.
        """
        offset, quiet = begin, 0.0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while not self._closed:
            over = await run_in_threadpool(ended)
            try:
                kind, data, offset = await _grown(read, offset)
            except GroundcrewError:  # the share does not respond: there may be more to come
                kind, data, over = "", b"", False
            if kind:
                decoder.reset()
                yield message(kind, "", str(offset))
            if data:
                quiet = 0.0
                yield message("text", decoder.decode(data), str(offset))
            elif over:
                yield message("end", "", str(offset))
                return
            else:
                quiet += LOOK / 2
                if quiet >= BEAT:
                    quiet = 0.0
                    yield b": alive\n\n"
                await asyncio.sleep(LOOK / 2)


async def _grown(read: Reading, offset: int) -> tuple[str, bytes, int]:
    """Return ("", "anew" or "skipped"; the log after `offset`; the end position)."""
    kind, part = "", await read(offset, CHUNK)
    if part is not None and part.size < offset:
        kind, part = "anew", await read(0, CHUNK)
    elif part is not None and part.size - offset > BEHIND:
        kind, part = "skipped", await read(-CHUNK, CHUNK)
    return (kind, part.data, part.end) if part is not None else ("", b"", offset)


class _Counted:
    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def __enter__(self) -> None:
        self._streams.open += 1

    def __exit__(self, *error: object) -> None:
        self._streams.open -= 1


def message(event: str, data: object, number: str = "") -> bytes:
    """Return one server-sent event with JSON data."""
    lines = [f"id: {number}"] if number else []
    lines += [f"event: {event}", f"data: {json.dumps(data)}"]
    return ("\n".join(lines) + "\n\n").encode()
