"""HTTP client for all requests to other servers.

A server may compress its response so that a few hundred bytes become hundreds of megabytes. Clients
created here accept at most one layer of gzip, decompress it in steps of a fixed size, and count
after that. A streamed response comes in such steps, so that its reader can stop at its own limit; a
response that is read whole ends at the client's limit.

A server may also send one byte now and then. httpx limits the time of each read, so that such a
response would never end: here the response as a whole has a limit, including its head. Nothing else
in the project may use httpx to send requests (ruff enforces this).
"""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import httpcore
import httpx

from reconciler.certificates import trusted
from reconciler.core.formatting import span

ANSWER_LIMIT = 64 << 20  # bytes of a response that is read whole
WHOLE_TIME = 120.0  # seconds for a response that is read whole, and for the head of any
STREAM_TIME = 3600.0  # seconds for a streamed response
STEP = 1 << 20  # bytes that are decompressed at once
LONGEST_AFTER = 3600.0  # longest Retry-After that is honoured, in seconds
GZIP = 16 + zlib.MAX_WBITS

_deadline: ContextVar[float] = ContextVar("_deadline", default=float("inf"))
"""Monotonic time at which the request of this thread ends."""


class Unreadable(httpx.DecodingError):
    """Response whose compression was not requested or is broken."""


class TooLarge(httpx.DecodingError):
    """Response that is larger than its reader allows."""


class Client(httpx.Client):
    """HTTP client with bounded responses, which does not follow redirects.

    `timeout` is in seconds for each read and write, `whole_time` for a response that is read whole.
    `limit` is in bytes, after decompression, for responses that are read whole.
    """

    def __init__(
        self,
        *,
        timeout: float,
        verify: ssl.SSLContext | None = None,
        base_url: str = "",
        limit: int = ANSWER_LIMIT,
        whole_time: float = WHOLE_TIME,
    ) -> None:
        super().__init__(
            timeout=timeout,
            verify=verify or trusted(),
            base_url=base_url,
            headers={"Accept-Encoding": "gzip"},
            follow_redirects=False,
        )
        self._limit = limit
        self._whole_time = whole_time
        for transport in (self._transport, *self._mounts.values()):
            if isinstance(transport, httpx.HTTPTransport):
                transport._pool._network_backend = _Network()  # httpx has no parameter for it

    def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request; see httpx. A response that is not streamed is read up to the limit."""
        options["follow_redirects"] = False  # httpx would read the response before it is bounded
        begun = time.monotonic()
        token = _deadline.set(begun + self._whole_time)
        try:
            answer = super().send(request, stream=True, **options)
            try:
                ends = begun + (STREAM_TIME if stream else self._whole_time)
                answer.stream = _Bounded(answer, None if stream else self._limit, ends)
                if not stream:
                    answer.read()
            except BaseException:
                answer.close()
                raise
        finally:
            _deadline.reset(token)
        return answer


def retry_seconds(retry_after: str, now: float) -> float:
    """Return the seconds from `now` that a Retry-After header gives, or 0 if it is unreadable.

    The header may hold a number of seconds or a date.
    """
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_AFTER) if isfinite(seconds) else 0.0


def refusal(answer: httpx.Response) -> tuple[str, float]:
    """Return what a server answers instead of a file, in words, and for how long it is left alone.

    The seconds are those of its Retry-After, or 0 without one.
    """
    seconds = retry_seconds(answer.headers.get("Retry-After", ""), time.time())
    asks = f" and asks for {span(seconds)} until the next request" if seconds else ""
    return f"answers {answer.status_code}{asks}", seconds


class _Network(httpcore.SyncBackend):
    """Connections that end at the deadline of the request that uses them."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect; see httpcore."""
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    """Connection that ends at the deadline of the request that uses it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, error: type[Exception]) -> float | None:
    """Return a timeout that ends at the deadline. Raises `error` if it has passed."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise error("the response takes too long")
    return left if timeout is None else min(timeout, left)


def read(answer: httpx.Response, limit: int) -> bytes:
    """Read a streamed response up to `limit` bytes. Raises TooLarge beyond."""
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > limit:
            raise TooLarge(f"{_shown(answer)} answers more than {limit} bytes")
    return bytes(body)


class _Bounded(httpx.SyncByteStream):
    """Body of a response, decompressed in steps and never longer than `limit` bytes.

    It ends at `ends` at the latest, a monotonic time.
    """

    def __init__(self, answer: httpx.Response, limit: int | None, ends: float) -> None:
        assert isinstance(answer.stream, httpx.SyncByteStream)
        self._packed = answer.stream
        self._limit = limit
        self._ends = ends
        self._url = _shown(answer)
        self._gzip = _is_gzip(answer)
        if self._gzip:
            answer.headers.pop("Content-Length", None)
        answer.headers.pop("Content-Encoding", None)

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._unpacked() if self._gzip else self._packed:
            size += len(piece)
            if self._limit is not None and size > self._limit:
                raise TooLarge(f"{self._url} answers more than {self._limit} bytes")
            if time.monotonic() > self._ends:
                raise httpx.ReadTimeout(f"{self._url} answers too slowly")
            yield piece

    def _unpacked(self) -> Iterator[bytes]:
        unpacker, begun = zlib.decompressobj(GZIP), False
        try:
            for data in self._packed:
                while data:
                    if unpacker.eof:  # another member follows
                        unpacker = zlib.decompressobj(GZIP)
                    begun = True
                    piece = unpacker.decompress(data, STEP)
                    yield piece
                    while len(piece) == STEP and not unpacker.eof and not unpacker.unconsumed_tail:
                        piece = unpacker.decompress(b"", STEP)
                        yield piece
                    data = unpacker.unused_data or unpacker.unconsumed_tail
        except zlib.error as error:
            raise Unreadable(f"{self._url} answers broken gzip: {error}") from error
        if begun and not unpacker.eof:
            raise Unreadable(f"{self._url} answers gzip that is cut off")

    def close(self) -> None:
        self._packed.close()


def _is_gzip(answer: httpx.Response) -> bool:
    """Return True for one layer of gzip, False for none; raise Unreadable for anything else."""
    header = answer.headers.get("Content-Encoding", "").lower()
    match [w for word in header.split(",") if (w := word.strip()) not in ("", "identity")]:
        case []:
            return False
        case ["gzip" | "x-gzip"]:
            return True
        case _:
            raise Unreadable(
                f"{_shown(answer)} answers with Content-Encoding {header[:80]!r}; only one layer "
                f"of gzip is read"
            )


def _shown(answer: httpx.Response) -> str:
    """Return the URL of a response, without credentials and query."""
    return str(answer.request.url.copy_with(userinfo=b"", query=None, fragment=None))
