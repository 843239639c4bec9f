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
from typing import Any, Self
from urllib.parse import quote

import httpx
from packaging.utils import canonicalize_name

from reconciler.certificates import UNTRUSTED, distrusts
from reconciler.core.errors import Retryable
from reconciler.http_client import Client, TooLarge
from reconciler.secrets import Login, login

TIMEOUT = 15.0  # seconds per request
PAGE = 100  # rows per page: both APIs limit it
PAGES = 1000
BASIC = "airflow.api.auth.backend.basic_auth in api.auth_backends"
UNLIMITED = "inf is not of type"  # in the response of a 2.x with an unlimited pool
DAGS_FOLDER = "dags-folder"  # 3.x: the bundle of the DAGs folder


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


class Api:
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
        self._http = Client(timeout=timeout)
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
            return {str(p["name"]): int(p["slots"]) for p in self._all("pools", "pools")}
        except Retryable as error:
            if UNLIMITED not in error.message:
                raise
            words = "Airflow 2.x cannot list its pools while one has no limit (-1 slots)"
            raise Retryable(error.reason, f"{self._url}: {words}; give it a number") from error

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
            self._json(answer, f"changing pool {name}")

    def busy(self) -> int:
        """Return how many task instances are running or queued."""
        answer = self._request(
            "GET",
            "dags/~/dagRuns/~/taskInstances",
            params=[("state", "running"), ("state", "queued"), ("limit", "1")],
        )
        found = self._json(answer, "counting running tasks").get("total_entries")
        if not isinstance(found, int):
            raise Retryable("AirflowUnexpected", f"{self._url}: no count of tasks in the answer")
        return found

    def import_errors(self) -> list[BrokenFile]:
        """Return every file that currently cannot be parsed, once each."""
        found = {
            _file(e, "filename"): (str(e.get("stack_trace") or ""), _seconds(e.get("timestamp")))
            for e in self._all("importErrors", "import_errors")
        }
        return [BrokenFile(file, text, at) for file, (text, at) in found.items()]

    def dags(self) -> list[Dag]:
        """Return every DAG that is currently parsed."""
        two = self._is_two()
        extra = {"only_active": "true"} if two else {"exclude_stale": "true"}
        path = "fileloc" if two else "relative_fileloc"
        return [
            Dag(str(d["dag_id"]), _file(d, path), _seconds(d.get("last_parsed_time")))
            for d in self._all("dags", "dags", extra)
        ]

    def health(self) -> dict[str, Section]:
        """Return the health page's sections: metadatabase, scheduler, triggerer, dag_processor."""
        path = "/health" if self._is_two() else "/api/v2/monitor/health"
        answer = self._send("GET", path)
        found = self._json(answer, "reading the health page")
        sections = {}
        for name, part in found.items():
            if isinstance(part, dict):
                beat = next((v for k, v in part.items() if k.endswith("heartbeat")), None)
                sections[name] = Section(str(part.get("status")), _seconds(beat))
        return sections

    def plugins(self) -> set[str]:
        """Return the normalised names of distributions whose plugins the API server has loaded."""
        sources = [str(p.get("source") or "") for p in self._all("plugins", "plugins")]
        return {canonicalize_name(s.partition("==")[0]) for s in sources if "==" in s}

    def providers(self) -> dict[str, str]:
        """Return the version of each provider package that the API server knows.

        Keys are normalised names.
        """
        found = self._all("providers", "providers")
        return {canonicalize_name(str(p["package_name"])): str(p.get("version")) for p in found}

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
        self, path: str, key: str, extra: dict[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield every row of a listing, page by page."""
        offset = 0
        for _ in range(PAGES):
            params = {"limit": str(PAGE), "offset": str(offset), **(extra or {})}
            found = self._json(self._request("GET", path, params=params), f"listing {path}")
            rows = found.get(key)
            if not isinstance(rows, list):
                raise Retryable("AirflowUnexpected", f"{self._url}: no {key} in the answer")
            yield from rows
            offset += len(rows)
            if not rows or offset >= int(found.get("total_entries", 0)):
                return

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one authenticated request; a rejected token is renewed once."""
        two = self._is_two()
        for attempt in (1, 2):
            headers: dict[str, str] = {}
            auth = None
            if two:
                found = self._credentials()
                auth = httpx.BasicAuth(found.user, found.password) if found else None
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
                "AirflowUnreachable", f"Airflow at {self._url} did not answer in time"
            ) from error
        except TooLarge as error:
            raise Retryable("AirflowUnexpected", str(error)) from error
        except httpx.HTTPError as error:
            if distrusts(error):
                raise Retryable(
                    "AirflowCertificate",
                    f"Airflow at {self._url}: {UNTRUSTED}: {error}",
                ) from error
            raise Retryable(
                "AirflowUnreachable", f"Airflow at {self._url} cannot be reached: {error}"
            ) from error
        return answer

    def _bearer(self) -> str:
        if self._token is None:
            found = self._credentials() or Login("", "", is_token=False)
            if found.is_token:
                self._token = found.password
                return self._token
            body = {"username": found.user, "password": found.password}
            answer = self._send("POST", "/auth/token", json=body)
            if answer.status_code in (400, 401, 403, 422):  # a 422 repeats what it was sent
                raise self._denied()
            if answer.status_code >= 400:  # what else it says may repeat what it was sent
                raise Retryable(
                    "AirflowUnexpected",
                    f"logging in: {self._url}/auth/token answered {answer.status_code}",
                )
            token = self._json(answer, "logging in").get("access_token")
            if not isinstance(token, str):
                raise Retryable("AirflowUnexpected", f"logging in: {self._url} gave no token")
            self._token = token
        return self._token

    def _credentials(self) -> Login | None:
        """Return the credentials from the secret's files, read each time."""
        found = login(self._secret) if self._secret is not None else None
        if found is not None and found.is_token:
            token = found.password
            if not (token.isascii() and token.isprintable()):  # httpx's error would show it
                raise self._denied()
        return found

    def _denied(self) -> Retryable:
        name = self._secret.name if self._secret is not None else "api.credentials"
        two = f"; an Airflow 2 takes them only with {BASIC}" if self._prefix == "/api/v1" else ""
        return Retryable(
            "AirflowDenied",
            f"Airflow at {self._url} refuses the credentials; renew the secret "
            f"<secrets_dir>/{self._team}/{name}/ (files username and password, or token){two}",
        )

    def _json(self, answer: httpx.Response, doing: str) -> dict[str, Any]:
        if answer.status_code >= 400 or "json" not in answer.headers.get("Content-Type", ""):
            raise self._unexpected(doing, answer)
        try:
            found = answer.json()
        except ValueError as error:
            raise self._unexpected(doing, answer) from error
        if not isinstance(found, dict):
            raise self._unexpected(doing, answer)
        return found

    def _unexpected(self, doing: str, answer: httpx.Response) -> Retryable:
        kind = answer.headers.get("Content-Type", "no content type").split(";")[0]
        return Retryable(
            "AirflowUnexpected",
            f"{doing}: {self._url} answered {answer.status_code} with {kind}, not JSON; is the "
            f"address that of Airflow's API?"
            if "json" not in kind
            else f"{doing}: {self._url} answered {answer.status_code}: {answer.text[:300]}",
        )


def _file(row: dict[str, Any], key: str) -> str:
    bundle, path = row.get("bundle_name"), str(row.get(key) or "")
    return path if bundle in (None, DAGS_FOLDER) else f"{bundle}:{path}"


def _seconds(value: object) -> float:
    """Return an ISO time as seconds since the epoch, or 0.0 for none."""
    if not isinstance(value, str) or not value:
        return 0.0
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        return 0.0
