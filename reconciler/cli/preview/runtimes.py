"""What is known of the instances' bases where no daemon runs: from a daemon's address, or a file.

A daemon serves it at `/api/v1/runtimes` and `groundcrew runtimes` prints it. It holds what is
installed in each base, and no secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pydantic import TypeAdapter, ValidationError

from reconciler import outgoing
from reconciler.api import contract
from reconciler.cli.failing import Misuse
from reconciler.core.errors import Retryable
from reconciler.core.model import Records
from reconciler.core.runtime import Runtime
from reconciler.outgoing import Client

LIMIT = 64 << 20  # bytes
TIMEOUT = 30.0
PATH = "/api/v1/runtimes"
TOKEN = "GROUNDCREW_TOKEN"  # noqa: S105 - the variable's name
TOKEN_FILE = "GROUNDCREW_TOKEN_FILE"  # noqa: S105 - the variable's name
TOKEN_LIMIT = 4096  # bytes

_RUNTIME = TypeAdapter(Runtime)


@dataclass(frozen=True, slots=True)
class Runtimes:
    """Runtimes by their keys, and which instance has which; no paths and images are known."""

    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    instances: Mapping[str, str] = field(default_factory=dict)

    def of(self, instance: str) -> Runtime | None:
        """The runtime of an instance, if it is known."""
        return self.runtimes.get(self.instances.get(instance, ""))


def of_records(records: Records) -> Runtimes:
    """What the records know."""
    found = {i.name: i.runtime for i in records.instances.values() if i.runtime is not None}
    return Runtimes({r.key: r for r in found.values()}, {name: r.key for name, r in found.items()})


def read(source: str) -> Runtimes:
    """The document at a path or an http(s) address; raises Misuse, or Retryable when unreachable.

    An address without a path is a daemon's. It is asked with the bearer token in GROUNDCREW_TOKEN,
    or in the file that GROUNDCREW_TOKEN_FILE names, if there is one.
    """
    if source.startswith(("https://", "http://")):
        address = _address(source)
        source, text = _shown(address), _fetch(address)
    else:
        text = _read(Path(source))
    try:
        # Newer daemons may say more.
        found = contract.Runtimes.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        wrong = f"{where}: {first['msg']}" if where else first["msg"]
        raise Misuse(f"{source} is not what `groundcrew runtimes` prints: {wrong}") from error
    return Runtimes(
        {
            key: _RUNTIME.validate_python({**one.model_dump(), "python": ""})
            for key, one in found.runtimes.items()
        },
        found.instances,
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
    token, shown = _token(), _shown(address)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with (
            Client(timeout=TIMEOUT) as client,
            client.stream("GET", address, headers=headers) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise Retryable("RuntimesUnreachable", _refused(shown, answer.status_code))
            return outgoing.read(answer, LIMIT)
    except outgoing.TooLarge as error:
        raise Misuse(f"{shown} sends more than {LIMIT} bytes; is it the right one?") from error
    except httpx.HTTPError as error:
        raise Retryable(
            "RuntimesUnreachable",
            f"{shown} does not give the runtimes ({error or type(error).__name__}); check the "
            f"address, and that it is reached from here",
        ) from error


def _address(source: str) -> httpx.URL:
    """What to ask: a daemon's address gets the path of its runtimes."""
    try:
        url = httpx.URL(source)
    except httpx.InvalidURL as error:
        raise Misuse(f"{source} is no address: {error}") from error
    if not url.host:
        raise Misuse(f"{source} names no host; write http://HOST:8085")
    return url.copy_with(path=PATH) if url.path == "/" else url


def _shown(address: httpx.URL) -> str:
    """The address as it may be shown: without a password."""
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


def _token() -> str:
    """The token to present; "" for none. Raises Misuse, which never has it in its words."""
    token, place = os.environ.get(TOKEN, "").strip(), TOKEN
    name = os.environ.get(TOKEN_FILE, "")
    if not token and name:
        place = f"{TOKEN_FILE} ({name})"
        try:
            with Path(name).open("rb") as file:
                token = file.read(TOKEN_LIMIT).decode(errors="replace").strip()
        except OSError as error:
            raise Misuse(f"{place}: {error.strerror}") from error
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Misuse(f"what is in {place} is no token: one word without spaces is expected")
    return token
