"""Authentication and authorization of requests.

A person is identified by a bearer token (in the Authorization header, or in the cookie that signing
in sets), or by the header of an authenticating proxy, if the settings allow it. Nobody else may
operate; whether anonymous users may read is a setting.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from reconciler.api.tokens import Role, Token, Tokens, holder
from reconciler.settings import HttpSettings

log = logging.getLogger(__name__)

SESSION = "groundcrew_session"  # the cookie with the token
CSRF = "groundcrew_csrf"  # the cookie with the secret that a form has to repeat
SESSION_SECONDS = 12 * 3600
HOST = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::\d+)?$")
LONGEST = 512  # characters of a token or a user's name

OFF = (
    "reading needs a token, and there are none: write `sha256hex role name` lines to "
    "<secrets_dir>/api/tokens, or set GROUNDCREW_HTTP__READ=anyone"
)


@dataclass(frozen=True, slots=True)
class Person:
    """Sender of a request; `name` goes into the history ("" means anonymous)."""

    name: str
    role: Role
    signed_in: bool = False  # by the cookie: signing out is possible

    @property
    def operates(self) -> bool:
        """True if this person may request changes."""
        return self.role is Role.OPERATE


class People:
    """Authentication; the tokens file is read again for each request."""

    def __init__(self, settings: HttpSettings, secrets_dir: Path, public_url: str) -> None:
        self._settings = settings
        self._tokens = Tokens(secrets_dir / "api" / "tokens")
        self._public = urlsplit(public_url)
        self._networks = [ipaddress.ip_network(p, strict=False) for p in settings.proxies]

    # --------------------------------------------------------------------------------- reading

    def reader(self, request: HTTPConnection) -> Person:
        """Return who reads. Raises HTTPException 401 if anonymous users may not."""
        person = self.known(request)
        if person is not None:
            return person
        tokens = self._tokens.read()
        if self._open(request, tokens):
            return Person("", Role.READ)
        raise HTTPException(
            401,
            OFF if tokens is None else "send a known token as `Authorization: Bearer …`",
            headers={"www-authenticate": "Bearer"},
        )

    def known(self, request: HTTPConnection) -> Person | None:
        """Return the person identified by a token or a proxy's header, or None if anonymous."""
        presented, signed_in = self.presented(request)
        if presented:
            token = self.token(presented)
            if token is not None:
                return Person(token.name, token.role, signed_in)
            if not signed_in:
                raise HTTPException(
                    401, "that token is not known", headers={"www-authenticate": "Bearer"}
                )
        return self._by_proxy(request)

    def presented(self, request: HTTPConnection) -> tuple[str, bool]:
        """Return (the token in the request, whether it came as a cookie)."""
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return presented.strip()[:LONGEST] or "-", False
        return request.cookies.get(SESSION, "")[:LONGEST], True

    def token(self, presented: str) -> Token | None:
        """Return the token with this text, if it is known."""
        return holder(self._tokens.read() or [], presented)

    def _by_proxy(self, request: HTTPConnection) -> Person | None:
        header = self._settings.user_header
        if not header or not self.from_proxy(request):
            return None
        name = request.headers.get(header, "").strip()[:LONGEST]
        if not name:
            return None
        operates = name in self._settings.operators
        return Person(name, Role.OPERATE if operates else Role.READ)

    def from_proxy(self, request: HTTPConnection) -> bool:
        """Return True if the request came directly from a trusted proxy."""
        return self.is_proxy(request.client.host if request.client else "")

    def is_proxy(self, address: str) -> bool:
        """Return True if an address is that of a trusted proxy."""
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(peer in network for network in self._networks)

    def _open(self, request: HTTPConnection, tokens: list[Token] | None) -> bool:
        if self._settings.read != "auto":
            return self._settings.read == "anyone"
        return tokens is None and _loopback(self._settings.host) and self._named_here(request)

    def _named_here(self, request: HTTPConnection) -> bool:
        """Return True if the request's host is an address or our own name, not a rebound one."""
        match = HOST.match(request.headers.get("host", ""))
        host = match[1] if match is not None else ""
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return host != "" and host in ("localhost", self._public.hostname)
        return True

    # ------------------------------------------------------------------------------- operating

    def operator(self, request: HTTPConnection, *, cookie: bool) -> Person:
        """Return who operates. Raises HTTPException 401 or 403.

        Without `cookie`, only the Authorization header counts: browsers do not send it by
        themselves, so another site cannot forge it.
        """
        _, signed_in = self.presented(request)
        person = self.known(request) if cookie or not signed_in else None
        if person is None:
            raise HTTPException(
                401,
                "operating needs a token with the operate role; send it as `Authorization: Bearer "
                "…`",
                headers={"www-authenticate": "Bearer"},
            )
        if not person.operates:
            log.warning("%s may not operate and asked to, at %s", person.name, request.url.path)
            raise HTTPException(403, f"{person.name} may read, not operate")
        return person

    def check_form(self, request: HTTPConnection, given: str) -> None:
        """Raise HTTPException 403 unless a form of our own pages was sent."""
        wanted = request.cookies.get(CSRF, "")
        if not wanted or not hmac.compare_digest(wanted.encode(), given.encode()):
            raise HTTPException(403, "that form is too old; load the page again and press again")
        self.check_origin(request)

    def check_origin(self, request: HTTPConnection) -> None:
        """Raise HTTPException 403 if a browser reports that another site sent the request."""
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "same-origin")
        host = request.headers.get("host", "")
        ours = (
            f"http://{host}",
            f"https://{host}",
            f"{self._public.scheme}://{self._public.netloc}",
        )
        if origin not in (None, *ours) or site not in ("same-origin", "none"):
            raise HTTPException(403, "that form came from another site")

    def secure(self, request: HTTPConnection) -> bool:
        """Return True if users reach the server by TLS; cookies are then restricted to TLS."""
        forwarded = request.headers.get("x-forwarded-proto", "")
        by_proxy = forwarded == "https" and self.from_proxy(request)
        named = self._public.scheme == "https" and request.url.hostname == self._public.hostname
        return request.url.scheme == "https" or by_proxy or named


def form_secret(request: HTTPConnection) -> str:
    """Return the secret for the forms of a page: that of the cookie, or a new one."""
    cookie = request.cookies.get(CSRF, "")
    return cookie if len(cookie) >= 40 and cookie.isascii() else secrets.token_urlsafe(32)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
