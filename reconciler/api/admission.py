"""Limits on what one client, and all clients together, may ask of the HTTP server.

A client that asks too often is answered late as well as refused, so one that waits for its answers
cannot keep the server busy with refusals. A client is an address; behind a trusted proxy it is the
address that the proxy forwards for.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

CLIENT_REQUESTS = 100  # open at once
CLIENT_RATE = 50.0  # requests a second
CLIENT_BURST = 200.0  # requests at once, after a pause
RATE = 300.0  # requests a second of all clients
BURST = 600.0
CLIENTS = 4096  # whose rate is remembered


@dataclass(slots=True)
class Bucket:
    """Requests that may still be made: it fills by `rate` a second up to `burst`."""

    rate: float
    burst: float
    left: float
    time: float

    def take(self, now: float) -> bool:
        """Take one request; return False if there is none left."""
        self.left = min(self.burst, self.left + (now - self.time) * self.rate)
        self.time = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


def _network(address: str) -> str:
    """Return an address, or the network of an IPv6 host, which has as many as it likes."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


class Admission:
    """Open requests and request rates; `is_proxy` tells addresses of trusted proxies."""

    def __init__(self, is_proxy: Callable[[str], bool], now: float) -> None:
        self._is_proxy = is_proxy
        self._all = Bucket(RATE, BURST, BURST, now)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._open: Counter[str] = Counter()

    def client(self, scope: Scope) -> str:
        """Return the client's address, or "" for a trusted proxy that forwards for nobody."""
        peer = str(scope["client"][0]) if scope.get("client") else ""
        if not self._is_proxy(peer):
            return _network(peer)
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        last = forwarded[-1].rpartition(b",")[2] if forwarded else b""
        return str(last.strip()[:64].decode("latin-1"))

    def has_room(self, client: str) -> bool:
        """Return False if a client has too many requests open."""
        return not client or self._open[client] < CLIENT_REQUESTS

    def enter(self, client: str) -> None:
        """Count a request as open."""
        self._open[client] += 1

    def leave(self, client: str) -> None:
        """Count a request as ended."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def take(self, client: str, now: float, *, spared: bool = False) -> bool:
        """Return False if a client asks too often, or all together do and it is not spared."""
        if client and not self._bucket(client, now).take(now):
            return False
        return spared or self._all.take(now)

    def _bucket(self, client: str, now: float) -> Bucket:
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = Bucket(CLIENT_RATE, CLIENT_BURST, CLIENT_BURST, now)
            if len(self._buckets) > CLIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return bucket
