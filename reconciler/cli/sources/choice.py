"""Choice of a source: the server that was named, the records here, or the server of the login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.cli.exit_codes import Misuse

if TYPE_CHECKING:
    from reconciler.cli.sources.server import Server
    from reconciler.cli.sources.source import Source

NOWHERE = (
    "there is no groundcrew.toml in this folder and no server is known: name one with --server URL "
    "or GROUNDCREW_SERVER, or keep one with `groundcrew login URL`; on the daemon's machine, name "
    "its settings with --config FILE or GROUNDCREW_CONFIG"
)

DAEMON = frozenset({"GROUNDCREW_STATE_DIR", "GROUNDCREW_DATABASE", "GROUNDCREW_GIT__URL"})
"""Variables of which a daemon without a settings file has at least one."""


@contextmanager
def opened() -> Iterator[Source]:
    """Yield the source that a command uses. Raises Misuse if there is none.

    A server that is named comes first, then the records that the settings here name, then the
    server of the last login.
    """
    source = chosen()
    try:
        yield source
    finally:
        source.close()


def chosen() -> Source:
    """Return the source that a command uses; see `opened`."""
    server = chosen_server()
    if server is not None:
        from reconciler.cli.sources.server import ServerSource

        return ServerSource(server)
    from reconciler.cli.sources.records import RecordsSource
    from reconciler.settings import Settings

    return RecordsSource(Settings())


def chosen_server() -> Server | None:
    """Return the server that a command uses, or None for the records here. Raises Misuse."""
    from reconciler.cli.sources.credentials import SERVER

    named = os.environ.get(SERVER, "").strip()
    if not named and _has_settings():
        return None
    return server_of(named)


def _has_settings() -> bool:
    """Return True if something here says where a daemon's records are."""
    path = Path(os.environ.get("GROUNDCREW_CONFIG", "groundcrew.toml"))
    return path.exists() or not DAEMON.isdisjoint(name.upper() for name in os.environ)


def server_of(named: str = "") -> Server:
    """Return a server with its token; without a name that of the last login. Raises Misuse."""
    from reconciler.cli.sources.credentials import (
        CA_FILE,
        Login,
        read_logins,
        server_url,
        token_from_environment,
    )

    logins = read_logins()
    if not named and not logins.current:
        raise Misuse(NOWHERE)
    from reconciler.cli.sources.server import Server

    url = server_url(named or logins.current)
    login = logins.servers.get(url, Login())
    return Server(
        url,
        token_from_environment() or login.token.get_secret_value(),
        os.environ.get(CA_FILE, "") or login.ca_file,
    )
