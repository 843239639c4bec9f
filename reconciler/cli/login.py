"""Commands `groundcrew login`, `logout` and `version`: the server that commands ask."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.options import Output
from reconciler.cli.output import Format, print_document, say, warn

if TYPE_CHECKING:
    from reconciler.cli.sources.server import Server

SomeServer = Annotated[
    str, typer.Argument(metavar="URL", help="Address of the server; default: --server.")
]


def login(
    url: SomeServer = "",
    ca_file: Annotated[
        Path | None,
        typer.Option(help="File with the authority of the server's certificate, in PEM format."),
    ] = None,
) -> None:
    """Keep the address of a server and a token for it, and use that server from now on.

    The token is read from standard input, or asked for on a terminal; it is kept in a file that
    only you can read. An empty one means to read anonymously, where the server allows that.
    """
    from pydantic import SecretStr

    from reconciler.cli.sources import credentials
    from reconciler.cli.sources.server import Server, ServerSource

    named = url or os.environ.get(credentials.SERVER, "")
    if not named:
        raise Misuse("name the server: groundcrew login https://HOST")
    address = credentials.server_url(named)
    authority = str(ca_file.absolute()) if ca_file is not None else ""
    kept = credentials.read_logins()
    token = credentials.checked_token(_read_token(address), "standard input")
    source = ServerSource(
        Server(address, token, authority or os.environ.get(credentials.CA_FILE, ""))
    )
    try:
        system = source.system()
    finally:
        source.close()
    known = credentials.Login(token=SecretStr(token), ca_file=authority)
    credentials.write_logins(
        credentials.Logins(current=address, servers={**kept.servers, address: known})
    )
    role = "may operate" if system.you.role == "operate" else "may read"
    say(f"logged in to {address} as {system.you.name or 'an anonymous user'}, who {role}")
    if os.environ.get(credentials.TOKEN) or os.environ.get(credentials.TOKEN_FILE):
        warn("GROUNDCREW_TOKEN or GROUNDCREW_TOKEN_FILE is set and is used instead of this token")


def _read_token(address: str) -> str:
    """Return the token from standard input, or from the user on a terminal."""
    from reconciler.cli.sources.credentials import TOKEN_LIMIT

    if sys.stdin.isatty():
        from getpass import getpass

        return getpass(f"Token for {address} (not shown): ").strip()
    return sys.stdin.buffer.read(TOKEN_LIMIT + 1).decode(errors="replace").strip()


def logout(url: SomeServer = "") -> None:
    """Forget the token for a server; without URL for the one of the last login."""
    from reconciler.cli.sources import credentials

    kept = credentials.read_logins()
    named = url or os.environ.get(credentials.SERVER, "") or kept.current
    address = credentials.server_url(named) if named else ""
    if address not in kept.servers:
        warn(f"there is no login for {address}" if address else "not logged in")
        raise typer.Exit(Exit.WRONG)
    others = {one: login for one, login in kept.servers.items() if one != address}
    current = "" if kept.current == address else kept.current
    credentials.write_logins(credentials.Logins(current=current, servers=others))
    say(f"logged out from {address}; the token itself stays valid until it is removed there")


def version(output: Output = Format.TABLE) -> None:
    """Show the version of this command, and of the server that it asks, if any."""
    from reconciler.cli.sources.choice import chosen_server
    from reconciler.version import installed_version

    try:
        server = chosen_server()
    except Misuse:  # no server is known, and no settings either
        server = None
    known = _server_version(server) if server is not None else None
    if output is Format.TABLE:
        say(f"groundcrew {installed_version()}")
        if server is not None:
            say(f"server {known} ({server.url})")
        return
    about = {"url": server.url, "version": known} if server is not None else None
    print_document({"version": installed_version(), "server": about}, output)


def _server_version(server: Server) -> str:
    from reconciler.cli.sources.server import ServerSource

    source = ServerSource(server)
    try:
        return source.system().version
    finally:
        source.close()
