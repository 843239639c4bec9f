"""Source that asks a server over its HTTP API."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from reconciler.api import contract
from reconciler.api.operations import LOG_OFFSET, ROOT
from reconciler.certificates import distrusts
from reconciler.cli.exit_codes import Misuse
from reconciler.cli.sources.source import LogPiece, NoLog
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.http_client import Client
from reconciler.version import installed_version

TIMEOUT = 30.0  # seconds for each read and write
LIMIT = 256 << 20  # bytes of a response

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Server:
    """Address of a server, and how to reach it; `token` is "" for an anonymous user."""

    url: str
    token: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:
        """Leave the token out."""
        return f"Server({self.url!r})"


class ServerSource:
    """Source over the HTTP API of a server. Redirects are not followed."""

    def __init__(self, server: Server) -> None:
        try:
            url = httpx.URL(server.url)
        except httpx.InvalidURL as error:
            raise Misuse(f"{server.url} is not the address of a server: {error}") from error
        if server.token and url.scheme != "https" and not _is_loopback(url.host):
            raise Misuse(
                f"{server.url} is not encrypted, so the token is not sent to it; use https://, or "
                f"a forwarded port on this machine"
            )
        self._url = server.url
        self._has_token = bool(server.token)
        self._client = Client(
            timeout=TIMEOUT, base_url=server.url, limit=LIMIT, verify=_authorities(server.ca_file)
        )
        self._client.headers["accept"] = "application/json, text/plain"
        self._client.headers["user-agent"] = f"groundcrew/{installed_version()}"
        if server.token:
            self._client.headers["authorization"] = f"Bearer {server.token}"

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    # --------------------------------------------------------------------------------- reading

    def system(self) -> contract.System:
        """Return the version, the leader, the newest event and who asks."""
        return self._read(contract.System, "/system")

    def status(self) -> contract.Status:
        """Return the status of everything, as it is now."""
        return self._read(contract.Status, "/status", {"fresh": "true"})

    def builds(self, environment: str = "", runtime: str = "") -> list[contract.BuildDetail]:
        """Return all builds, or those of an environment or a runtime, the newest first."""
        query = {"environment": environment, "runtime": runtime}
        return self._read(list[contract.BuildDetail], "/builds", query)

    def events(self, query: contract.HistoryQuery) -> list[contract.Event]:
        """Return the events that match."""
        given = query.model_dump(mode="json", exclude_none=True)
        return self._read(list[contract.Event], "/history", given)

    def runtimes(self) -> contract.Runtimes:
        """Return what is installed in the instances' bases."""
        return self._read(contract.Runtimes, "/runtimes")

    def log(self, build: contract.BuildDetail, offset: int) -> LogPiece:
        """Return a piece of a log."""
        answer = self._send(
            "GET", f"/builds/{build.key}/log", {"offset": str(offset)}, known=(404,)
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NoLog(self._refusal(answer).message)
        begin = answer.headers.get(LOG_OFFSET, "")
        if not begin.isdecimal():
            self._misunderstood(f"no header {LOG_OFFSET}")
        return LogPiece(int(begin), answer.content)

    def sbom(self, build: contract.Build) -> bytes:
        """Return the SBOM of a build. Raises Stalled if it has none."""
        return self._send("GET", f"/builds/{build.key}/sbom").content

    # ------------------------------------------------------------------------------- operating

    def requests(self) -> list[contract.Request]:
        """Return the requests that wait to be carried out."""
        return self._read(list[contract.Request], "/requests")

    def ask(self, ask: contract.Ask) -> contract.Request:
        """Queue a request. Raises Stalled if it is refused."""
        body = ask.model_dump(mode="json", exclude_defaults=True)
        answer = self._send("POST", "/requests", body=body)
        return self._parsed(contract.Request, answer)

    # ------------------------------------------------------------------------------- responses

    def _read(self, kind: type[T], path: str, query: Mapping[str, object] | None = None) -> T:
        given = {name: str(value) for name, value in (query or {}).items() if value != ""}
        return self._parsed(kind, self._send("GET", path, given))

    def _parsed(self, kind: type[T], answer: httpx.Response) -> T:
        try:
            # A newer server may send more fields.
            return TypeAdapter(kind).validate_json(answer.content, extra="ignore")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"][:8]))
            self._misunderstood(f"{where}: {first['msg']}")

    def _misunderstood(self, what: str) -> NoReturn:
        raise Stalled(
            Reason.SERVER_UNKNOWN,
            f"{self._url} answers what groundcrew {installed_version()} does not understand "
            f"({what[:200]}); install the server's version, which `groundcrew version` shows",
        )

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        known: tuple[int, ...] = (),
    ) -> httpx.Response:
        """Send a request. Raises Retryable or Stalled unless it succeeds or its status is known."""
        try:
            answer = self._client.request(method, f"{ROOT}{path}", params=query, json=body)
        except httpx.HTTPError as error:
            if distrusts(error):
                raise Stalled(
                    Reason.SERVER_CERTIFICATE,
                    f"the certificate of {self._url} is not trusted; name the file of its "
                    f"authority with `groundcrew login --ca-file` or GROUNDCREW_CA_FILE",
                ) from error
            raise Retryable(
                Reason.SERVER_UNREACHABLE,
                f"{self._url} does not answer ({error or type(error).__name__}); check the "
                f"address, and that this machine reaches it",
            ) from error
        if not answer.is_success:
            refusal = self._refusal(answer)
            if answer.status_code not in known:
                self._refuse(answer, refusal)
        return answer

    def _refusal(self, answer: httpx.Response) -> contract.Error:
        """Return the reason for a refusal. Raises Stalled unless a Groundcrew server sent it."""
        try:
            return contract.Error.model_validate_json(answer.content, extra="ignore")
        except ValidationError:
            pass
        if answer.is_redirect:
            to = answer.headers.get("location", "")[:200]
            what = f"redirects to {to}, maybe a login page; give the address of the server itself"
        elif answer.status_code == httpx.codes.NOT_FOUND:
            what = f"has no {ROOT}: it is not a Groundcrew server, or the path in front is missing"
        elif answer.is_server_error:
            raise Retryable(
                Reason.SERVER_UNREACHABLE,
                f"{self._url} answers {answer.status_code}, as a proxy does whose server is away",
            )
        else:
            what = f"answers {answer.status_code}, and not as a Groundcrew server does"
        raise Stalled(Reason.SERVER_UNKNOWN, f"{self._url} {what}")

    def _refuse(self, answer: httpx.Response, refusal: contract.Error) -> NoReturn:
        """Raise what a refusal means for the user."""
        reason = Reason(refusal.reason)
        match answer.status_code:
            case httpx.codes.UNAUTHORIZED:
                what = (
                    "does not know this token; log in again with `groundcrew login`"
                    if self._has_token
                    else "needs a token: `groundcrew login` keeps one, or set GROUNDCREW_TOKEN"
                )
                raise Stalled(reason, f"{self._url} {what} ({refusal.message})")
            case httpx.codes.FORBIDDEN:
                raise Stalled(reason, f"{self._url} refuses this: {refusal.message}")
            case httpx.codes.UNPROCESSABLE_ENTITY:
                self._misunderstood(refusal.message)
            case httpx.codes.NOT_FOUND | httpx.codes.CONFLICT:
                raise Stalled(reason, refusal.message)
            case _:
                raise Retryable(reason, f"{self._url}: {refusal.message}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authorities(path: str) -> ssl.SSLContext | None:
    """Return a TLS context that trusts the authorities in a file; None for the usual ones."""
    if not path:
        return None
    try:
        return ssl.create_default_context(cafile=Path(path))
    except (OSError, ssl.SSLError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Misuse(f"{path} does not hold certificates in PEM format: {what}") from error
