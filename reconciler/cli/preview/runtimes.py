"""Runtimes of the instances' bases for use without a daemon: from a daemon's URL, or a file.

A daemon serves them at `/api/v1/runtimes` and `groundcrew runtimes` prints them. They list what is
installed in each base, and contain no secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pydantic import TypeAdapter, ValidationError

from reconciler import http_client
from reconciler.api import contract
from reconciler.cli.exit_codes import Misuse
from reconciler.cli.sources.credentials import TOKEN, TOKEN_FILE, token_from_environment
from reconciler.core.errors import Retryable
from reconciler.core.model import Records
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.http_client import Client

LIMIT = 64 << 20  # bytes
TIMEOUT = 30.0
PATH = "/api/v1/runtimes"

_RUNTIME = TypeAdapter(Runtime)


@dataclass(frozen=True, slots=True)
class Runtimes:
    """Runtimes by key, and the key of each instance; without paths and images."""

    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    instances: Mapping[str, str] = field(default_factory=dict)

    def of(self, instance: str) -> Runtime | None:
        """Return the runtime of an instance, if it is known."""
        return self.runtimes.get(self.instances.get(instance, ""))


def of_records(records: Records) -> Runtimes:
    """Return the runtimes in the records."""
    runtimes = {i.name: i.runtime for i in records.instances.values() if i.runtime is not None}
    return Runtimes(
        {r.key: r for r in runtimes.values()}, {name: r.key for name, r in runtimes.items()}
    )


def read(source: str) -> Runtimes:
    """Return the document at a path or URL. Raises Misuse, or Retryable if it is unreachable.

    A URL without a path is a daemon's. The request has the bearer token in GROUNDCREW_TOKEN, or in
    the file that GROUNDCREW_TOKEN_FILE names, if there is one.
    """
    if source.startswith(("https://", "http://")):
        address = _address(source)
        source, text = _shown(address), _fetch(address)
    else:
        text = _read(Path(source))
    try:
        # Newer daemons may send more fields.
        document = contract.Runtimes.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        wrong = f"{where}: {first['msg']}" if where else first["msg"]
        raise Misuse(f"{source} is not what `groundcrew runtimes` prints: {wrong}") from error
    return Runtimes(
        {
            key: _RUNTIME.validate_python({**one.model_dump(), "python": ""})
            for key, one in document.runtimes.items()
        },
        document.instances,
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT)
    except OSError as error:
        raise Misuse(
            f"{path}: {error.strerror}; write it with `groundcrew runtimes > {path}` where the "
            f"daemon runs, or give the daemon's address"
        ) from error


def _fetch(address: httpx.URL) -> bytes:
    token, shown = token_from_environment(), _shown(address)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with (
            Client(timeout=TIMEOUT) as client,
            client.stream("GET", address, headers=headers) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise Retryable(Reason.RUNTIMES_UNREACHABLE, _refused(shown, answer.status_code))
            return http_client.read(answer, LIMIT)
    except http_client.TooLarge as error:
        raise Misuse(f"{shown} sends more than {LIMIT} bytes; is it the right one?") from error
    except httpx.HTTPError as error:
        raise Retryable(
            Reason.RUNTIMES_UNREACHABLE,
            f"{shown} does not give the runtimes ({error or type(error).__name__}); check the "
            f"address, and that it is reached from here",
        ) from error


def _address(source: str) -> httpx.URL:
    """Return the URL to request: a daemon's URL gets the path of its runtimes."""
    try:
        url = httpx.URL(source)
    except httpx.InvalidURL as error:
        raise Misuse(f"{source} is not an address: {error}") from error
    if not url.host:
        raise Misuse(f"{source} names no host; write http://HOST:8085")
    return url.copy_with(path=PATH) if url.path == "/" else url


def _shown(address: httpx.URL) -> str:
    """Return the URL without a password, for messages."""
    return str(address.copy_with(userinfo=b""))


def _refused(shown: str, status: int) -> str:
    match status:
        case 401:
            what = f"asks for a token: put one with the role read in {TOKEN}, or in a file that "
            what += f"{TOKEN_FILE} names"
        case 403:
            what = f"does not take this token; check {TOKEN} and {TOKEN_FILE}"
        case 404:
            what = "has no runtimes; give a daemon's address, such as http://HOST:8085, or where "
            what += "you put what `groundcrew runtimes` prints"
        case _ if 300 <= status < 400:
            what = "sends elsewhere, maybe to a login page; give the address that answers itself"
        case _:
            what = "does not give the runtimes"
    return f"{shown} answered {status}: it {what}"
