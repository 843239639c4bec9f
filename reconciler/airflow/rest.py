"""Client for the parts of Airflow's REST API that activations need (2.x: /api/v1, 3.x: /api/v2).

Health is always answered with 200, so the body is read; 3.x answers 200 with its UI page for
unknown paths, so a response that is not JSON is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from packaging.utils import canonicalize_name

from reconciler.airflow.answers import (
    Dags,
    Health,
    ImportErrors,
    Page,
    Plugins,
    Pools,
    Providers,
    Session,
    TaskCount,
)
from reconciler.certificates import UNTRUSTED, distrusts
from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from reconciler.documents import Document, Malformed, parse
from reconciler.http_client import Client, TooLarge
from reconciler.secrets import Login, login

TIMEOUT = 15.0  # seconds per request
PAGE = 100  # rows per page: both APIs limit it
PAGES = 1000
PAGE_LIMIT = 16 << 20  # bytes
BASIC = "airflow.api.auth.backend.basic_auth in api.auth_backends"
UNLIMITED = "inf is not of type"  # in the response of a 2.x with an unlimited pool
DAGS_FOLDER = "dags-folder"  # 3.x: the bundle of the DAGs folder

R = TypeVar("R")
D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Dag:
    """Active DAG, unpaused or paused; `parsed_at` in seconds since the epoch, 0 if never.

    `file` has the same form as that of a BrokenFile.
    """

    id: str
    file: str
    parsed_at: float


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """File that cannot be parsed, and the error; `at` in seconds since the epoch.

    `file` is its path (2.x), or its path within its bundle (3.x; "bundle:path" for a bundle that is
    not the DAGs folder).
    """

    file: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Section:
    """Section of the health page: its status, and its latest heartbeat (0 if it has none)."""

    status: str
    heartbeat: float


class AirflowApi:
    """Session with one Airflow.

    All methods raise Retryable: AirflowUnreachable if it is down or slow, AirflowDenied for
    rejected credentials, AirflowCertificate for an untrusted certificate, AirflowUnexpected for an
    invalid response.
    """

    def __init__(
        self, url: str, secret: Path | None, *, timeout: float = TIMEOUT, team: str = ""
    ) -> None:
        self._url = url
        self._secret = secret
        self._team = team
        self._http = Client(timeout=timeout, limit=PAGE_LIMIT)
        self._prefix = ""
        self._token: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    # ------------------------------------------------------------------------------- queries

    def pools(self) -> dict[str, int]:
        """Return every pool and its slots; -1 means unlimited."""
        try:
            return {pool.name: pool.slots for pool in self._all("pools", Pools)}
        except Retryable as error:
            if UNLIMITED not in error.message:
                raise
            message = "Airflow 2.x cannot list its pools while one has no limit (-1 slots)"
            raise Retryable(error.reason, f"{self._url}: {message}; give it a number") from error

    def set_pool(self, name: str, slots: int) -> None:
        """Change the slots of a pool and nothing else; a pool that is gone is no error."""
        path = f"pools/{quote(name, safe='')}"
        mask = {"update_mask": "slots"}
        # 3.x wants the whole pool in the body; the mask keeps everything but the slots as it is
        whole = {"name": name, "slots": slots, "include_deferred": False}
        answer = self._request("PATCH", path, params=mask, json=whole)
        if answer.status_code in (400, 422):  # the default pool may refuse its name in the body
            answer = self._request("PATCH", path, params=mask, json={"slots": slots})
        if answer.status_code != 404:
            self._read(answer, Document, f"changing pool {name}")

    def busy(self) -> int:
        """Return how many task instances are running or queued."""
        answer = self._request(
            "GET",
            "dags/~/dagRuns/~/taskInstances",
            params=[("state", "running"), ("state", "queued"), ("limit", "1")],
        )
        return self._read(answer, TaskCount, "counting running tasks").total

    def import_errors(self) -> list[BrokenFile]:
        """Return every file that currently cannot be parsed, once each."""
        errors = {
            _file(row.bundle, row.filename): (row.stack_trace or "", _seconds(row.timestamp))
            for row in self._all("importErrors", ImportErrors)
        }
        return [BrokenFile(file, text, at) for file, (text, at) in errors.items()]

    def dags(self) -> list[Dag]:
        """Return every DAG that is currently parsed."""
        two = self._is_two()
        extra = {"only_active": "true"} if two else {"exclude_stale": "true"}
        return [
            Dag(
                row.dag_id,
                _file(row.bundle, row.fileloc if two else row.relative_fileloc),
                _seconds(row.last_parsed_time),
            )
            for row in self._all("dags", Dags, extra)
        ]

    def health(self) -> dict[str, Section]:
        """Return the health page's sections: metadatabase, scheduler, triggerer, dag_processor."""
        path = "/health" if self._is_two() else "/api/v2/monitor/health"
        page = self._read(self._send("GET", path), Health, "reading the health page")
        return {
            name: Section(str(part.status), _seconds(part.heartbeat))
            for name, part in page
            if part is not None
        }

    def plugins(self) -> set[str]:
        """Return the normalised names of distributions whose plugins the API server has loaded."""
        return {
            canonicalize_name(s.partition("==")[0]) for s in self._plugin_sources() if "==" in s
        }

    def loose_plugins(self) -> set[str]:
        """Return the sources of plugins that no distribution has: files of the plugins folder."""
        return {source for source in self._plugin_sources() if source and "==" not in source}

    def _plugin_sources(self) -> list[str]:
        return [row.source or "" for row in self._all("plugins", Plugins)]

    def providers(self) -> dict[str, str]:
        """Return the version of each provider package that the API server knows.

        Keys are normalised names.
        """
        rows = self._all("providers", Providers)
        return {canonicalize_name(row.package_name): row.version for row in rows}

    # ------------------------------------------------------------------------------ requests

    def _is_two(self) -> bool:
        """Return True if the 2.x API responds there; checked once."""
        if not self._prefix:
            answer = self._send("GET", "/api/v2/version")
            three = answer.status_code == 200 and "json" in answer.headers.get("Content-Type", "")
            if not three:
                answer = self._send("GET", "/api/v1/version")
                if answer.status_code != 200 or "json" not in answer.headers.get(
                    "Content-Type", ""
                ):
                    raise self._unexpected("asking for its version", answer)
            self._prefix = "/api/v2" if three else "/api/v1"
        return self._prefix == "/api/v1"

    def _all(
        self, path: str, kind: type[Page[R]], extra: dict[str, str] | None = None
    ) -> Iterator[R]:
        """Yield every row of a listing, page by page."""
        offset = 0
        for _ in range(PAGES):
            params = {"limit": str(PAGE), "offset": str(offset), **(extra or {})}
            page = self._read(self._request("GET", path, params=params), kind, f"listing {path}")
            yield from page.rows
            offset += len(page.rows)
            if not page.rows or offset >= page.total:
                return
        raise Retryable(
            Reason.AIRFLOW_UNEXPECTED, f"{self._url}: {path} has more than {offset} rows"
        )

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one authenticated request; a rejected token is renewed once."""
        two = self._is_two()
        for attempt in (1, 2):
            headers: dict[str, str] = {}
            auth = None
            if two:
                credentials = self._credentials()
                auth = (
                    httpx.BasicAuth(credentials.user, credentials.password) if credentials else None
                )
            else:
                headers["Authorization"] = f"Bearer {self._bearer()}"
            answer = self._send(
                method, f"{self._prefix}/{path}", headers=headers, auth=auth, **arguments
            )
            if answer.status_code == 401 and attempt == 1 and not two:
                self._token = None
                continue
            break
        if answer.status_code in (401, 403):
            raise self._denied()
        return answer

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, self._url + path, **arguments)
        except httpx.TimeoutException as error:
            raise Retryable(
                Reason.AIRFLOW_UNREACHABLE, f"Airflow at {self._url} did not answer in time"
            ) from error
        except TooLarge as error:
            raise Retryable(Reason.AIRFLOW_UNEXPECTED, str(error)) from error
        except httpx.HTTPError as error:
            if distrusts(error):
                raise Retryable(
                    Reason.AIRFLOW_CERTIFICATE,
                    f"Airflow at {self._url}: {UNTRUSTED}: {error}",
                ) from error
            raise Retryable(
                Reason.AIRFLOW_UNREACHABLE, f"Airflow at {self._url} cannot be reached: {error}"
            ) from error
        return answer

    def _bearer(self) -> str:
        if self._token is None:
            credentials = self._credentials() or Login("", "", is_token=False)
            if credentials.is_token:
                self._token = credentials.password
                return self._token
            body = {"username": credentials.user, "password": credentials.password}
            answer = self._send("POST", "/auth/token", json=body)
            if answer.status_code in (400, 401, 403, 422):  # a 422 repeats what it was sent
                raise self._denied()
            if answer.status_code >= 400:  # what else it says may repeat what it was sent
                raise Retryable(
                    Reason.AIRFLOW_UNEXPECTED,
                    f"logging in: {self._url}/auth/token answered {answer.status_code}",
                )
            self._token = self._read(answer, Session, "logging in").access_token
        return self._token

    def _credentials(self) -> Login | None:
        """Return the credentials from the secret's files, read each time."""
        credentials = login(self._secret) if self._secret is not None else None
        if credentials is not None and credentials.is_token:
            token = credentials.password
            if not (token.isascii() and token.isprintable()):  # httpx's error would show it
                raise self._denied()
        return credentials

    def _denied(self) -> Retryable:
        name = self._secret.name if self._secret is not None else "api.credentials"
        two = f"; an Airflow 2 takes them only with {BASIC}" if self._prefix == "/api/v1" else ""
        return Retryable(
            Reason.AIRFLOW_DENIED,
            f"Airflow at {self._url} refuses the credentials; renew the secret "
            f"<secrets_dir>/{self._team}/{name}/ (files username and password, or token){two}",
        )

    def _read(self, answer: httpx.Response, kind: type[D], doing: str) -> D:
        """Return the document in a response, of which its model checks the shape."""
        if answer.status_code >= 400 or "json" not in answer.headers.get("Content-Type", ""):
            raise self._unexpected(doing, answer)
        try:
            return parse(kind, answer.content, "the response", PAGE_LIMIT)
        except Malformed as error:
            raise Retryable(
                Reason.AIRFLOW_UNEXPECTED,
                f"{doing}: {self._url} answered {answer.status_code}: {error}",
            ) from error

    def _unexpected(self, doing: str, answer: httpx.Response) -> Retryable:
        kind = answer.headers.get("Content-Type", "no content type").split(";")[0]
        return Retryable(
            Reason.AIRFLOW_UNEXPECTED,
            f"{doing}: {self._url} answered {answer.status_code} with {kind}, not JSON; "
            f"check that this is the URL of Airflow's API"
            if "json" not in kind
            else f"{doing}: {self._url} answered {answer.status_code}: {answer.text[:300]}",
        )


def _file(bundle: str | None, path: str | None) -> str:
    return path or "" if bundle in (None, DAGS_FOLDER) else f"{bundle}:{path or ''}"


def _seconds(value: str | None) -> float:
    """Return an ISO time as seconds since the epoch, or 0.0 if there is none or it is invalid."""
    try:
        return datetime.fromisoformat(value).timestamp() if value else 0.0
    except (ValueError, OverflowError, OSError):  # a year that the system's clock cannot hold
        return 0.0
