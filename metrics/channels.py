"""Channels: how facts reach a Slack webhook or any other one.

A channel sends once and says what the answer means; when to try again is the notifier's matter. The
address is read from its secret file for every delivery, so that a rotated one is used at once; it
is never part of an answer's words.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Protocol

import httpx

from metrics.facts import Fact
from metrics.messages import Payload, digest, message, without_blocks
from reconciler.outgoing import Client
from reconciler.secretfiles import read
from reconciler.trust import UNTRUSTED, distrusts

TIMEOUT = 10.0  # seconds of one request
LONGEST_AFTER = 3600.0  # seconds of a Retry-After that are honoured
WORDS = 200  # characters kept of an answer


SILENT = logging.getLogger(f"{__name__}.silent")  # slack-sdk would log the address
SILENT.disabled = True


class Outcome(StrEnum):
    """What an answer means."""

    TAKEN = "taken"
    LATER = "later"  # nobody answers, or not now: 429, 5xx
    REFUSED = "refused"  # the address or its credentials are wrong: someone must mend them
    REJECTED = "rejected"  # this message can never be taken


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome; `after` are the seconds that the other side asks to wait."""

    outcome: Outcome
    words: str = ""
    after: float = 0.0


TAKEN = Answer(Outcome.TAKEN)


class Channel(Protocol):
    """Where facts can be sent."""

    def target(self) -> str:
        """A digest of the present address; "" when there is none. It changes when that does."""

    def send(self, facts: Sequence[Fact]) -> Answer:
        """Send facts as one message; several are a digest."""


def fingerprint(*secrets: str) -> str:
    """A mark that changes with the secrets and tells nothing of them; "" when the first is ""."""
    if not secrets[0]:
        return ""
    return hashlib.sha256("\0".join(secrets).encode()).hexdigest()[:16]


def judge(code: int, words: str, now: float, retry_after: str = "") -> Answer:
    """What an HTTP answer means that came at `now`."""
    said = f"{code} {words[:WORDS]}".strip()
    if 200 <= code < 300:
        return TAKEN
    if code in (408, 425, 429) or code >= 500:
        return Answer(Outcome.LATER, said, seconds_of(retry_after, now))
    if code in (400, 413, 415, 422):
        return Answer(Outcome.REJECTED, said)
    return Answer(Outcome.REFUSED, said)


def seconds_of(retry_after: str, now: float) -> float:
    """A Retry-After header, in seconds or as a date, as seconds from `now`; 0 when unreadable."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - now
        except (ValueError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_AFTER) if isfinite(seconds) else 0.0


class SlackChannel:
    """An incoming webhook of Slack: `<directory>/url`."""

    def __init__(self, directory: Path) -> None:
        self._url = directory / "url"

    def target(self) -> str:
        """A digest of the address."""
        return fingerprint(read(self._url))

    def send(self, facts: Sequence[Fact]) -> Answer:
        """Send one message; when Slack does not like its blocks, its text alone."""
        url = read(self._url)
        payload = message(facts[0]) if len(facts) == 1 else digest(facts)
        answer = self._post(url, payload)
        if answer.outcome is Outcome.REJECTED:
            answer = self._post(url, without_blocks(payload))
        return answer

    def _post(self, url: str, payload: Payload) -> Answer:
        body = json.dumps(payload).encode()
        return _post(url, body, {"content-type": "application/json; charset=utf-8"})


class WebhookChannel:
    """Any HTTP server: the facts as JSON, signed when there is `<directory>/key`.

    The body is {"apiVersion": "groundcrew/v1", "kind": "Facts", "facts": […]}; each fact has an
    `id`, so that a receiver can leave out what it knows. The signature is in the header
    X-Groundcrew-Signature-256: "sha256=" and the hex HMAC of the body.
    """

    def __init__(self, directory: Path) -> None:
        self._url = directory / "url"
        self._key = directory / "key"

    def target(self) -> str:
        """A digest of the address and the key."""
        return fingerprint(read(self._url), read(self._key))

    def send(self, facts: Sequence[Fact]) -> Answer:
        """Send the facts in one request."""
        url, key = read(self._url), read(self._key)
        body = json.dumps(document(facts), ensure_ascii=False).encode()
        headers = {"content-type": "application/json", "user-agent": "groundcrew"}
        if key:
            signed = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
            headers["x-groundcrew-signature-256"] = f"sha256={signed}"
        return _post(url, body, headers)


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Send one request; of what is answered only the beginning of an error is read."""
    try:
        with (
            Client(timeout=TIMEOUT) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            words = next(answer.iter_text(WORDS), "") if answer.is_error else ""
            after = answer.headers.get("retry-after", "")
            return judge(answer.status_code, words.replace(url, "***"), time.time(), after)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
        return _unanswered(url, error)


def document(facts: Sequence[Fact]) -> dict[str, object]:
    """The JSON document of a webhook."""
    return {"apiVersion": "groundcrew/v1", "kind": "Facts", "facts": [asdict(f) for f in facts]}


def _unanswered(url: str, error: Exception) -> Answer:
    if not url.startswith(("https://", "http://")):
        return Answer(Outcome.REFUSED, "the address is not an http(s) address")
    return unanswered(error)


def unanswered(error: Exception) -> Answer:
    """No answer at all, by any client. Its own words may hold a secret: they are not repeated."""
    if distrusts(error):
        return Answer(Outcome.LATER, UNTRUSTED)
    cause = getattr(error, "reason", error)
    return Answer(Outcome.LATER, f"no answer: {type(cause).__name__}")
