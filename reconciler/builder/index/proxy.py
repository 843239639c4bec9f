"""Package index proxy that sends each name to the only index it may come from.

uv talks only to it while it resolves and builds: so a name that matches an index's globs comes from
that index and from no other, whoever requests it, and no credential ever reaches uv, its files, its
environment or a build script. It serves only projects and their files. In the sandbox it is the
whole network (`carry`); without one it is on loopback.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx
from packaging.utils import canonicalize_name

from reconciler.builder.index.egress import Reach
from reconciler.builder.index.offers import Offer, read_offer
from reconciler.builder.index.relay import SOCKET
from reconciler.builder.index.server import OnLoopback, OnSocket, send
from reconciler.builder.index.simple_api import (
    JSON,
    Page,
    Remembered,
    Served,
    decode,
    fetch_page,
    serve_page,
)
from reconciler.certificates import distrusts, trusted
from reconciler.core.definitions import Globs, Index, Recipe
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed
from reconciler.http_client import Client, refusal
from reconciler.isolation import Failed, TooExpensive, read_for
from reconciler.secrets import login

log = logging.getLogger(__name__)

PYPI = "https://pypi.org/simple/"
KNOWN_LIMIT = 200_000  # URLs of files that are remembered for one build
INSIDE_PORT = 8400  # in the sandbox's own network, where it is always free
NOT_IMPLEMENTED = 501  # of HEAD, where an index has only GET: the resolver then asks otherwise


@dataclass(frozen=True, slots=True)
class Upstream:
    """Index with everything needed to read it."""

    name: str
    url: str
    globs: Globs
    client: Client
    reach: Reach
    auth: tuple[str, str] | None = None

    def auth_for(self, url: str) -> httpx.BasicAuth | None:
        """Return the credentials, but only for the index's own origin."""
        same = urlsplit(url)[:2] == urlsplit(self.url)[:2]
        return httpx.BasicAuth(*self.auth) if self.auth is not None and same else None

    def open(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[httpx.Response]:
        """Return the response after redirects, not yet read. Raises what `Reach.open` raises."""
        return self.reach.open(self.client, url, method=method, headers=headers, auth=self.auth_for)


def credentials(secrets_dir: Path, team: str, name: str) -> tuple[str, str]:
    """Return a team's secret as (user, password). Raises Stalled("SecretMissing")."""
    secret = login(secrets_dir / team / name)
    if secret is None:
        raise Stalled(
            Reason.SECRET_MISSING,
            f"the secret {name} of team {team} is not in <secrets_dir>/{team}/{name}/ (files "
            f"username and password, or token)",
        )
    return secret.user or "__token__", secret.password


class Indexes:
    """Indexes of one recipe, which `serve` presents as one index.

    `refused` maps names to the index that denied them, `missing` to the one that lacks them,
    `unreachable` indexes to what went wrong, `waits` to the seconds for which they asked to be left
    alone. `sources_only` holds names of which the index has nothing but sdists that may not be
    built, `distrusted` the indexes whose certificate is not trusted, `astray` says in words which
    addresses they led to that may not be read, `unreadable` which of their pages are none. Names of
    in-repo packages that are not listed are `missing` on the default index, which is not asked for
    them.
    `allow` are hosts that the operator allows, see `Reach`.
    """

    def __init__(
        self,
        recipe: Recipe,
        team: str,
        secrets_dir: Path,
        default: str,
        timeout: float = 30.0,
        allow: Sequence[str] = (),
    ) -> None:
        self._allow = allow
        self._upstreams = [
            self._upstream(index, team, secrets_dir, timeout) for index in recipe.indexes
        ]
        address, auth = without_credentials(default or PYPI)
        client = Client(timeout=timeout)
        reach = Reach(address, operator=True, allow=allow)
        self._default = Upstream("default", address, Globs(()), client, reach, auth)
        self._team = team
        self._source_builds = recipe.source_builds
        self._internal = dict(recipe.internal)
        described = [[i.name, i.url, *i.packages] for i in recipe.indexes]
        mark = json.dumps([team, address, described, recipe.source_builds])
        self._mark = hashlib.sha256(mark.encode()).hexdigest()[:12]
        self._known: dict[str, frozenset[str]] = {}
        self._remembered: Remembered | None = None
        self.unreachable: dict[str, str] = {}
        self.waits: dict[str, float] = {}
        self._denied: dict[str, str] = {}
        self._forbidden: dict[str, str] = {}
        self._lacking: dict[str, str] = {}
        self._readable: set[str] = set()
        self.sources_only: set[str] = set()
        self.distrusted: set[str] = set()
        self.astray: set[str] = set()
        self.unreadable: set[str] = set()

    def _upstream(self, index: Index, team: str, secrets_dir: Path, timeout: float) -> Upstream:
        address, auth = without_credentials(index.url)
        if index.credentials:
            auth = credentials(secrets_dir, team, index.credentials)
        context = trusted()
        if index.ca_bundle:
            try:
                context = ssl.create_default_context(cadata=index.ca_bundle)
            except ssl.SSLError as error:
                raise Stalled(
                    Reason.INVALID_CERTIFICATE, f"caBundle of index {index.name} is no PEM: {error}"
                ) from error
        client = Client(timeout=timeout, verify=context)
        reach = Reach(address, allow=self._allow)
        return Upstream(index.name, address, Globs(index.packages), client, reach, auth)

    @property
    def secrets(self) -> set[str]:
        """Return values that must not be shown."""
        passwords = {u.auth[1] for u in (*self._upstreams, self._default) if u.auth is not None}
        return passwords - {""}

    @property
    def path(self) -> str:
        """The path of the simple API below the URL that serves it."""
        return f"/{self._mark}/simple/"

    @property
    def plain(self) -> bool:
        """True if uv may use the default index directly: there is nothing to decide or protect."""
        return not (self._upstreams or self._source_builds or self._internal or self._default.auth)

    def of(self, name: str) -> Upstream:
        """Return the only index that `name` comes from."""
        normal = canonicalize_name(name)
        for upstream in self._upstreams:
            if upstream.globs.match(normal):
                return upstream
        return self._default

    def remember(self) -> None:
        """Ask the indexes once for each project from now on: many runs read the same pages."""
        self._remembered = Remembered()

    @contextmanager
    def serve(self, folder: Path | None) -> Iterator[str]:
        """Serve the simple API; yield its URL.

        With a folder it is served on a unix socket there, and the URL is the one in a sandbox that
        forwards to it. The URL differs for each team and set of indexes, so that uv never uses
        cached files of one for another.
        """
        handler = self._handler()
        server: socketserver.BaseServer
        if folder is None:
            server = loopback = OnLoopback(("127.0.0.1", 0), handler)
            port = loopback.server_port
        else:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                (folder / SOCKET).unlink(missing_ok=True)
                server = OnSocket(f"/proc/self/fd/{descriptor}/{SOCKET}", handler)
            finally:
                os.close(descriptor)
            port = INSIDE_PORT
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{port}{self.path}"
        finally:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        indexes = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                indexes.answer(self, urlsplit(self.path).path, f"http://{self.headers['Host']}")

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing: uv reports what matters."""

        return Handler

    def close(self) -> None:
        """Close the connections."""
        for upstream in (*self._upstreams, self._default):
            upstream.client.close()

    def with_real_urls(self, lock: str) -> str:
        """Return a lock's text with the real URLs of files, and without this proxy as an index."""
        ours = rf'http://[^/"]+/(?:[^/"]+/)?{self._mark}'
        lock = re.sub(rf'(?m)^index = "{ours}/[^"]*"\n', "", lock)
        return re.sub(
            rf'url = "{ours}/file/[^/"]+/([^/"]+)/([^"]+)"',
            lambda match: _row(decode(match[1]), unquote(match[2])),
            lock,
        )

    # ------------------------------------------------------------------------------- requests

    def answer(self, handler: BaseHTTPRequestHandler, path: str, base: str) -> None:
        """Handle a request for `path`; `base` is the URL below which that path is."""
        mark, *parts = path.strip("/").split("/")
        try:
            if mark == self._mark and len(parts) == 2 and parts[0] == "simple":
                self._page(handler, canonicalize_name(parts[1]), base)
            elif mark == self._mark and len(parts) == 4 and parts[0] == "file":
                self._file(handler, canonicalize_name(parts[1]), decode(parts[2]), parts[3])
            else:
                send(handler, 404, b"", "text/plain")
        except Retryable as error:
            send(handler, 503, error.message.encode(), "text/plain")
        except Failed as error:
            log.error("the page of %s cannot be read:\n%s", parts[1][:100], error)
            send(handler, 502, b"", "text/plain")
        except TooExpensive as error:
            self.unreadable.add(
                f"index {self.of(parts[1]).name}: the page of {parts[1][:100]} cannot be read, as "
                f"{error}"
            )
            send(handler, 403, str(error).encode(), "text/plain")
        except Stalled as error:  # not 5xx, which uv would retry
            self.astray.add(error.message)
            send(handler, 403, error.message.encode(), "text/plain")
        except Malformed as error:
            self.unreadable.add(f"index {self.of(parts[1]).name}: {error}")
            send(handler, 403, str(error).encode(errors="replace"), "text/plain")
        except (httpx.HTTPError, OSError, ValueError) as error:
            handler.close_connection = True
            send(handler, 502, str(error).encode(errors="replace"), "text/plain")

    def _page(self, handler: BaseHTTPRequestHandler, name: str, base: str) -> None:
        code, served = self._project(name, base)
        if served is None:
            send(handler, code, b"", "text/plain")
        else:
            send(handler, 200, served.document, JSON)

    def _project(self, name: str, base: str = "") -> tuple[int, Served | None]:
        """Return the index's status, and the files of a project that may be used."""
        upstream = self.of(name)
        if self.path_of(name) is not None:
            return self._note(name, upstream, Page(404)), None
        remembered = self._remembered.get(name) if self._remembered is not None else None
        if remembered is not None:
            return 200, remembered
        try:
            page = fetch_page(upstream, urljoin(upstream.url.rstrip("/") + "/", f"{name}/"))
        except httpx.HTTPError as error:
            if distrusts(error):
                self.distrusted.add(upstream.name)
            self.unreachable[upstream.name] = str(error) or type(error).__name__
            raise
        status = self._note(name, upstream, page)
        if status != 200:
            return status, None
        served = read_for(
            self._team,
            serve_page,
            page,
            name,
            f"{base}/{self._mark}/file/{name}",
            name in self._source_builds,
        )
        if served.sources_only:
            self.sources_only.add(name)
        if sum(map(len, list(self._known.values()))) + len(served.urls) > KNOWN_LIMIT:
            self._known.clear()  # they are read again when they are requested
        self._known[name] = served.urls
        if self._remembered is not None and base:
            self._remembered.add(name, served)
        return 200, served

    def _note(self, name: str, upstream: Upstream, page: Page) -> int:
        """Remember an index's answer for a name; return the status that the resolver gets.

        Some indexes answer 403 for a name that they lack. That is so where no credentials were
        given, or where they were taken for another name.
        """
        status = page.status
        if self._is_refused(upstream, status, page.refusal):
            return status
        if status == 401:
            self._denied[name] = upstream.name
        elif status == 403 and upstream.auth is not None:
            self._forbidden[name] = upstream.name
        elif status != 200:
            self._lacking[name] = upstream.name
            return 404
        else:
            self._readable.add(upstream.name)
        return status

    def _is_refused(self, upstream: Upstream, status: int, refusal: tuple[str, float]) -> bool:
        """Return True and remember it if an index cannot answer now, whatever it was asked for."""
        self.unreachable.pop(upstream.name, None)
        self.waits.pop(upstream.name, None)
        if status == NOT_IMPLEMENTED or (status < 500 and status != 429):
            return False
        message, self.waits[upstream.name] = refusal
        self.unreachable[upstream.name] = f"it {message}"
        return True

    @property
    def refused(self) -> dict[str, str]:
        """Names that an index refused to show, with the index."""
        forbidden = {n: i for n, i in self._forbidden.items() if i not in self._readable}
        return {**self._denied, **forbidden}

    @property
    def missing(self) -> dict[str, str]:
        """Names that an index does not have, with the index."""
        hidden = {n: i for n, i in self._forbidden.items() if i in self._readable}
        return {**self._lacking, **hidden}

    def path_of(self, name: str) -> str | None:
        """Return the path of an in-repo package that no index was asked for; None for others."""
        return self._internal.get(name) if self.of(name) is self._default else None

    def offer(self, name: str) -> Offer | None:
        """Return the files that an index has for a name; None where that cannot be found out."""
        if self.path_of(name) is not None:
            return None
        upstream = self.of(name)
        try:
            page = fetch_page(upstream, urljoin(upstream.url.rstrip("/") + "/", f"{name}/"))
            if self._note(name, upstream, page) != 200:
                return None
            return read_for(self._team, read_offer, page, name, upstream.name)
        except (httpx.HTTPError, OSError, ValueError, GroundcrewError, Failed):
            return None

    def _file(self, handler: BaseHTTPRequestHandler, name: str, url: str, filename: str) -> None:
        if url not in self._known.get(name, ()):
            _, served = self._project(name)  # uv may know it from an earlier page
            if served is None or url not in served.urls:
                send(handler, 404, b"", "text/plain")
                return
        upstream = self.of(name)
        if filename.endswith(".metadata"):
            url += ".metadata"
        wanted = handler.headers.get("Range")
        headers = {"Accept-Encoding": "identity", **({"Range": wanted} if wanted else {})}
        with upstream.open(url, method=handler.command, headers=headers) as answer:
            self._is_refused(upstream, answer.status_code, refusal(answer))
            handler.send_response(answer.status_code)
            for header in ("Content-Length", "Content-Range", "Accept-Ranges", "ETag"):
                if header in answer.headers:
                    handler.send_header(header, answer.headers[header])
            if "Content-Length" not in answer.headers:
                handler.send_header("Connection", "close")
                handler.close_connection = True
            handler.end_headers()
            for chunk in answer.iter_raw():
                handler.wfile.write(chunk)


def without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return a URL that may be shown, and the credentials that were in it."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if not user:
        return url, None
    name, _, password = user.partition(":")
    return parts._replace(netloc=host).geturl(), (unquote(name), unquote(password))


def _row(url: str, filename: str) -> str:
    """Return a lock's row for a file, with its name if the URL does not end in it."""
    named = "" if url.endswith(f"/{filename}") else f"name = {_quoted(filename)}, "
    return f"{named}url = {_quoted(url)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
