"""Checks of notification routes: the secret exists and its server responds. Nothing is sent.

The connection is opened and, for https, the certificate is verified; no request follows, so that no
message appears and the address, which is a secret, is not sent. For a bot, Slack is asked whether
the token is valid.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from metrics.channels import Outcome
from metrics.slackbot import check_token
from reconciler.core.reasons import Reason
from reconciler.doctor.findings import Check, Finding, Level, good, off
from reconciler.secrets import read
from reconciler.settings import RouteSettings, Settings

TIMEOUT = 10.0  # seconds
SLACK = "hooks.slack.com"
PORTS = {"http": 80, "https": 443}


def look_route(settings: Settings, route: RouteSettings) -> Iterator[Finding]:
    """Check one route of notifications."""
    about = f"route {route.name}"
    if route.channel:
        yield _bot(settings, route, about)
        return
    path = settings.secrets_dir / route.secret / "url"
    url = read(path)
    if not url:
        if "routes" not in settings.notify.model_fields_set:
            yield off(Check.NOTIFY, about, "no messages are sent", f"write its address into {path}")
            return
        yield _wrong(
            about,
            Reason.SECRET_MISSING,
            f"there is no address in {path}",
            "write the webhook's address into that file",
        )
        return
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    if not port or not parts.hostname:
        yield _wrong(
            about,
            Reason.ADDRESS_WRONG,
            f"what is in {path} is no http or https address",
            "write the webhook's whole address, https://…, into that file",
        )
        return
    if parts.hostname == SLACK and not _slack(parts.path):
        yield _wrong(
            about,
            Reason.ADDRESS_WRONG,
            f"what is in {path} is not the address of an incoming webhook",
            "copy it from Slack's page of the app, Incoming Webhooks: "
            f"https://{SLACK}/services/…/…/…",
        )
        return
    yield _reach(about, parts.scheme, parts.hostname, port)


def _bot(settings: Settings, route: RouteSettings, about: str) -> Finding:
    """Check a route that uses a bot token, by asking Slack whether the token is valid."""
    path = settings.secrets_dir / route.secret / "token"
    if not read(path):
        return _wrong(
            about,
            Reason.SECRET_MISSING,
            f"there is no token in {path}",
            "write the bot's token, xoxb-…, into that file",
        )
    answer = check_token(read(path))
    match answer.outcome:
        case Outcome.TAKEN:
            message = f"Slack takes the token; whether it may write to {route.channel} is not known"
            return good(Check.NOTIFY, about, f"{message}; nothing was sent")
        case Outcome.LATER:
            return Finding(
                Check.NOTIFY,
                about,
                Level.UNREACHABLE,
                Reason.RECEIVER_UNREACHABLE,
                f"Slack: {answer.words}",
                "see that the daemon's network reaches slack.com, or set HTTPS_PROXY for the "
                "daemon",
            )
        case _:
            return _wrong(
                about,
                Reason.TOKEN_REFUSED,
                answer.words,
                f"copy the app's Bot User OAuth Token into {path}",
            )


def _slack(path: str) -> bool:
    parts = path.strip("/").split("/")
    return (len(parts) == 4 and parts[0] == "services") or parts[0] in ("workflows", "triggers")


def _reach(about: str, scheme: str, host: str, port: int) -> Finding:
    """Connect, through the environment's proxy if it names one."""
    proxy = "" if proxy_bypass(host) else getproxies().get(scheme, "")
    via = ""
    if proxy:
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port or 3128
        via = "the proxy "
    try:
        with socket.create_connection((host, port), TIMEOUT) as plain:
            if scheme == "https":
                with ssl.create_default_context().wrap_socket(plain, server_hostname=host):
                    pass
    except ssl.SSLCertVerificationError as error:
        return _wrong(
            about,
            Reason.CERTIFICATE_WRONG,
            f"the certificate of {via}{host} is not trusted: {error.verify_message}",
            "renew it, or give the daemon its authority (SSL_CERT_FILE)",
        )
    except OSError as error:
        detail = error.strerror or str(error) or type(error).__name__
        return Finding(
            Check.NOTIFY,
            about,
            Level.UNREACHABLE,
            Reason.RECEIVER_UNREACHABLE,
            f"{via}{host}:{port} does not answer: {detail}",
            "see that the daemon's network reaches it, or set HTTPS_PROXY for the daemon",
        )
    return good(Check.NOTIFY, about, f"{via}{host}:{port} answers; nothing was sent")


def _wrong(about: str, reason: Reason, message: str, mend: str) -> Finding:
    return Finding(Check.NOTIFY, about, Level.WRONG, reason, message, mend)
