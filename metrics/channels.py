"""Channels: clients that deliver facts to Slack or another webhook.

A channel sends a message once and reports the outcome; the notifier decides when to try again. The
address is read from its secret file for every delivery, so a rotated address takes effect at once.
It never appears in the text of an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx

from metrics.facts import Fact
from reconciler.certificates import UNTRUSTED, distrusts
from reconciler.http_client import Client, retry_seconds
from reconciler.secrets import read

if TYPE_CHECKING:
    from metrics.messages import Payload

TIMEOUT = 10.0  # seconds per request
WORDS = 200  # characters of an answer that are kept


SILENT = logging.getLogger(f"{__name__}.silent")  # slack-sdk would log the address
SILENT.disabled = True


class Outcome(StrEnum):
    """Outcome of a delivery."""

    TAKEN = "taken"
    LATER = "later"  # the receiver is unreachable or asks to wait: 429, 5xx
    REFUSED = "refused"  # the address or its credentials are wrong: a person must correct them
    REJECTED = "rejected"  # this message will never be accepted


@dataclass(frozen=True, slots=True)
class Response:
    """Outcome of a delivery; `after` is how many seconds the receiver asks to wait."""

    outcome: Outcome
    words: str = ""
    after: float = 0.0


TAKEN = Response(Outcome.TAKEN)


class Channel(Protocol):
    """Destination for facts."""

    def target(self) -> str:
        """Return a digest that changes with the current address, or "" if there is no address."""

    def send(self, facts: Sequence[Fact]) -> Response:
        """Send facts as one message; several facts are sent as a digest."""


def fingerprint(*secrets: str) -> str:
    """Return a digest that reveals nothing of the secrets, or "" if the first secret is empty."""
    if not secrets[0]:
        return ""
    return hashlib.sha256("\0".join(secrets).encode()).hexdigest()[:16]


def judge(code: int, words: str, now: float, retry_after: str = "") -> Response:
    """Return the answer for an HTTP status; `now` is when it was received."""
    said = f"{code} {words[:WORDS]}".strip()
    if 200 <= code < 300:
        return TAKEN
    if code in (408, 425, 429) or code >= 500:
        return Response(Outcome.LATER, said, retry_seconds(retry_after, now))
    if code in (400, 413, 415, 422):
        return Response(Outcome.REJECTED, said)
    return Response(Outcome.REFUSED, said)


def slack_payload(facts: Sequence[Fact]) -> Payload:
    """Return one message for Slack.

    Its blocks come from slack-sdk, which is imported only when there is something to send: it would
    otherwise take a tenth of the CPU time in which a daemon starts.
    """
    from metrics.messages import of_facts

    return of_facts(facts)


def without_blocks(payload: Payload) -> Payload:
    """Return the plain text of a payload, for use when its blocks are rejected."""
    return {"text": payload["text"]}


class SlackChannel:
    """Incoming webhook of Slack, with its address in `<directory>/url`."""

    def __init__(self, directory: Path) -> None:
        self._url = directory / "url"

    def target(self) -> str:
        """Return a digest of the address."""
        return fingerprint(read(self._url))

    def send(self, facts: Sequence[Fact]) -> Response:
        """Send one message. If Slack rejects its blocks, send its text alone."""
        url = read(self._url)
        payload = slack_payload(facts)
        answer = self._post(url, payload)
        if answer.outcome is Outcome.REJECTED:
            answer = self._post(url, without_blocks(payload))
        return answer

    def _post(self, url: str, payload: Payload) -> Response:
        body = json.dumps(payload).encode()
        return _post(url, body, {"content-type": "application/json; charset=utf-8"})


class WebhookChannel:
    """Any HTTP server: receives facts as JSON, signed if `<directory>/key` exists.

    The body is {"apiVersion": "groundcrew/v1", "kind": "Facts", "facts": […]}; each fact has an
    `id`, so that a receiver can skip facts that it already has. The header
    X-Groundcrew-Signature-256 holds the signature: "sha256=" and the hex HMAC of the body.
    """

    def __init__(self, directory: Path) -> None:
        self._url = directory / "url"
        self._key = directory / "key"

    def target(self) -> str:
        """Return a digest of the address and the key."""
        return fingerprint(read(self._url), read(self._key))

    def send(self, facts: Sequence[Fact]) -> Response:
        """Send the facts in one request."""
        url, key = read(self._url), read(self._key)
        body = json.dumps(document(facts), ensure_ascii=False).encode()
        headers = {"content-type": "application/json", "user-agent": "groundcrew"}
        if key:
            signed = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
            headers["x-groundcrew-signature-256"] = f"sha256={signed}"
        return _post(url, body, headers)


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> Response:
    """Send one request. Of the response, only the beginning of an error is read."""
    try:
        with (
            Client(timeout=TIMEOUT) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            error_text = next(answer.iter_text(WORDS), "") if answer.is_error else ""
            after = answer.headers.get("retry-after", "")
            return judge(answer.status_code, error_text.replace(url, "***"), time.time(), after)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
        return _unanswered(url, error)


def document(facts: Sequence[Fact]) -> dict[str, object]:
    """Return the JSON document that a webhook receives."""
    return {"apiVersion": "groundcrew/v1", "kind": "Facts", "facts": [asdict(f) for f in facts]}


def _unanswered(url: str, error: Exception) -> Response:
    if not url.startswith(("https://", "http://")):
        return Response(Outcome.REFUSED, "the address is not an http(s) address")
    return unanswered(error)


def unanswered(error: Exception) -> Response:
    """Return the answer for a request that failed without a response, whatever the client.

    The error's own text is left out because it may hold a secret.
    """
    if distrusts(error):
        return Response(Outcome.LATER, UNTRUSTED)
    cause = getattr(error, "reason", error)
    return Response(Outcome.LATER, f"no answer: {type(cause).__name__}")
