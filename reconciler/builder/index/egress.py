"""Network policy for a build's requests, whoever wrote the URL.

The daemon fetches for code that has no network of its own, from URLs that a definition, an index's
page or a redirect names. The server must not be the daemon's machine, its link-local network or its
cloud's services, and for public URLs nothing within the company. The address of the actual
connection is checked before anything is sent: a name may resolve differently each time.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.http_client import Client

REDIRECTS = 5
PRIVATE = "private"
METADATA = frozenset(
    ipaddress.ip_address(a)
    for a in ("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254")
)
"""Services of clouds that hand out credentials and are not on a link-local address."""

NAT64 = ipaddress.ip_network("64:ff9b::/96")
PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Auth = Callable[[str], httpx.BasicAuth | None]


def kind_of(address: str) -> str:
    """Return "" for a public IP address, or the word for its kind."""
    ip = _plain(ipaddress.ip_address(address))
    if ip.is_loopback:
        return "loopback"
    if ip in METADATA:
        return "metadata"
    if ip.is_link_local:
        return "link-local"
    if ip.is_unspecified:
        return "unspecified"
    if ip.is_multicast:
        return "multicast"
    if ip.is_reserved:
        return "reserved"
    return "" if ip.is_global else PRIVATE


def _plain(ip: Address) -> Address:
    """Return the IPv4 address that an IPv6 address represents."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return ip
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def origin(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of a URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)


class Reach:
    """Policy for requests that start at `root`.

    To `root`'s own origin: any address, if the `operator` chose it; otherwise public and private
    ones. To others: public addresses, and private ones while everything that answered as `root` was
    itself not public. `allow` are globs of hosts (or host:port) that the operator allows in
    addition.
    """

    def __init__(self, root: str, *, operator: bool = False, allow: Sequence[str] = ()) -> None:
        self._root = origin(root)
        self._operator = operator
        self._allow = allow
        self._inside: bool | None = None  # unknown before the first connection to `root`

    @contextmanager
    def open(
        self,
        client: Client,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        auth: Auth = lambda _url: None,
    ) -> Iterator[httpx.Response]:
        """Yield the response after redirects, not yet read; `auth` returns each URL's credentials.

        Raises Stalled("AddressRefused") before anything is sent if the address is not allowed, and
        httpx's errors.
        """
        before = self._root[0]
        for _ in range(REDIRECTS + 1):
            scheme = origin(url)[0]
            if before == "https" and scheme != "https":
                raise _refused(url, "it leads from https to plain http")
            before = scheme
            request = client.build_request(
                method, url, headers=headers, extensions={"trace": self._watch(url)}
            )
            answer = client.send(request, auth=auth(url), stream=True, follow_redirects=False)
            try:
                if not answer.has_redirect_location:
                    yield answer
                    return
                url = urljoin(url, answer.headers["Location"])
            finally:
                answer.close()
        raise _refused(url, f"it takes more than {REDIRECTS} redirects")

    def _watch(self, url: str) -> Callable[[str, dict[str, Any]], None]:
        """Return a hook that checks each connection for `url` before it is used.

        A connection to another host goes to the proxy of the environment, which connects for us:
        the name is checked as it resolves here, and left to the proxy if it does not resolve.
        """
        host, direct = origin(url)[1], False

        def watch(event: str, info: dict[str, Any]) -> None:
            nonlocal direct
            if event.endswith("connect_tcp.started"):
                direct = str(info["host"]).lower() == host
                for address in [] if direct else _resolved(host):
                    self._judge(url, address)
            elif event.endswith("connect_tcp.complete") and direct:
                stream = info["return_value"]
                try:
                    self._judge(url, stream.get_extra_info("server_addr")[0])
                except BaseException:
                    stream.close()
                    raise

        return watch

    def _judge(self, url: str, address: str) -> None:
        kind = kind_of(address)
        own = origin(url) == self._root
        if own:
            self._inside = self._inside is not False and kind != ""
        _, host, port = origin(url)
        if (own and self._operator) or any(
            fnmatch.fnmatchcase(name, glob.lower())
            for name in (host, f"{host}:{port}")
            for glob in self._allow
        ):
            return
        if self._inside is None:  # what is cached of `root` needed no connection to it
            addresses = _resolved(self._root[1])
            self._inside = bool(addresses) and all(kind_of(address) for address in addresses)
        if kind and not (kind == PRIVATE and (own or self._inside)):
            raise _refused(url, f"{host} is {address}, a {kind} address")


def _resolved(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _refused(url: str, why: str) -> Stalled:
    shown = urlsplit(url)
    address = f"{shown.scheme}://{shown.netloc.rpartition('@')[2]}{shown.path}"
    return Stalled(
        Reason.ADDRESS_REFUSED,
        f"{address} is not read for a build: {why}. Use an address that is reached without; the "
        f"platform team may allow a host in the daemon's setting builder.allow_hosts",
    )
