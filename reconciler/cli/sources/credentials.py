"""Servers and tokens that `groundcrew login` keeps, and those that the environment names.

They are kept in `groundcrew/servers.json` below the user's configuration folder, which only the
user may read. A token never appears in an argument, a message or a log.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_serializer

from reconciler.cli.exit_codes import Misuse

SERVER = "GROUNDCREW_SERVER"
CA_FILE = "GROUNDCREW_CA_FILE"
TOKEN = "GROUNDCREW_TOKEN"  # noqa: S105 - the variable's name
TOKEN_FILE = "GROUNDCREW_TOKEN_FILE"  # noqa: S105 - the variable's name
TOKEN_LIMIT = 4096  # bytes
FILE_LIMIT = 1 << 20  # bytes


class Login(BaseModel):
    """Token for one server, and the file with the authority of its certificate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: SecretStr = SecretStr("")
    ca_file: str = ""

    @field_serializer("token", when_used="json")
    def _in_clear(self, token: SecretStr) -> str:
        return token.get_secret_value()


class Logins(BaseModel):
    """All logins by URL; `current` is the server that is used if none is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    current: str = ""
    servers: Mapping[str, Login] = Field(default_factory=dict)


def logins_path() -> Path:
    """Return the path of the file, whether or not it exists."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(folder) if folder.startswith("/") else Path.home() / ".config"
    return base / "groundcrew" / "servers.json"


def read_logins() -> Logins:
    """Return what is kept; nothing if there is no file. Raises Misuse."""
    path = logins_path()
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(FILE_LIMIT)
    except FileNotFoundError:
        return Logins()
    if mode & 0o077:
        raise Misuse(
            f"{path} holds tokens and others may read it; run `chmod 600 {path}`, and log in again "
            f"with new tokens if it was exposed"
        )
    try:
        return Logins.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Misuse(
            f"{path} cannot be read ({first['msg']}); remove it and log in again"
        ) from None


def write_logins(logins: Logins) -> None:
    """Replace the file, so that nobody else can read it at any time."""
    path = logins_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".servers-")  # of mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(logins.model_dump_json(indent=1))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def server_url(text: str) -> str:
    """Return the URL of a server in the form in which it is kept. Raises Misuse."""
    try:
        url = urlsplit(text.strip())
        port = url.port
    except ValueError as error:
        raise Misuse(f"{text} is not the address of a server: {error}") from error
    if "@" in url.netloc:
        raise Misuse("the address of a server contains no user or password; use `groundcrew login`")
    if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
        raise Misuse(f"{text} is not the address of a server; write https://HOST or http://HOST")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    shown_port = f":{port}" if port is not None else ""
    return f"{url.scheme}://{host}{shown_port}{url.path.rstrip('/')}"


def token_from_environment() -> str:
    """Return the token that the environment names, or "". Raises Misuse without repeating it."""
    token, source = os.environ.get(TOKEN, "").strip(), TOKEN
    name = os.environ.get(TOKEN_FILE, "")
    if not token and name:
        source = f"{TOKEN_FILE} ({name})"
        try:
            with Path(name).open("rb") as file:
                token = file.read(TOKEN_LIMIT).decode(errors="replace").strip()
        except OSError as error:
            raise Misuse(f"{source}: {error.strerror}") from error
    return checked_token(token, source)


def checked_token(token: str, source: str) -> str:
    """Return the token. Raises Misuse, without repeating it, if it cannot be one."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Misuse(f"{source} does not hold a token: one word without spaces is expected")
    return token
