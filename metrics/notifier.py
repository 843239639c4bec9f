"""From events to messages in the outbox, and from the outbox to Slack.

At least once: a crash between sending and noting it sends that one message again. Delivery runs in
a thread of its own and never delays a reconcile.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any, Protocol

from slack_sdk.http_retry.builtin_handlers import (
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)
from slack_sdk.webhook import WebhookClient

from metrics.messages import fact, message
from reconciler.core.model import Event

log = logging.getLogger(__name__)

TIMEOUT = 10  # seconds of one request
FIRST_WAIT = 5.0
LONGEST_WAIT = 900.0
ATTEMPTS = 100  # about a day
REFUSED_ATTEMPTS = 5  # an address that says no
URL_LIMIT = 4096
PAGE = 1000


class Message(Protocol):
    """A message that is due."""

    @property
    def id(self) -> int: ...  # noqa: D102
    @property
    def payload(self) -> str: ...  # noqa: D102
    @property
    def attempts(self) -> int: ...  # noqa: D102


class Outbox(Protocol):
    """The part of the store that is used here."""

    def events(self, *, after_id: int = 0, limit: int = 1000) -> list[Event]:
        """Events after one, oldest first."""

    def notified(self) -> int:
        """The last event that was looked at."""

    def enqueue(self, cursor: int, messages: dict[str, str]) -> None:
        """Queue messages and move the cursor, together."""

    def pending(self, now: float, limit: int = 50) -> list[Any]:
        """Messages that are due."""

    def settle(self, message: int, state: str, error: str = "", not_before: float = 0.0) -> None:
        """Note what became of a message."""


class Notifier:
    """Tells Slack what happened, each fact once."""

    def __init__(self, outbox: Outbox, secrets_dir: Path, public_url: str = "") -> None:
        self._outbox = outbox
        self._secret = secrets_dir / "slack" / "url"
        self._public_url = public_url
        self._delivering = threading.Lock()

    def enqueue(self) -> None:
        """Queue messages for what has happened since the last time."""
        cursor = self._outbox.notified()
        while True:
            events = self._outbox.events(after_id=cursor, limit=PAGE)
            if not events:
                return
            messages: dict[str, str] = {}
            for event in events:
                payload = message(event, self._public_url)
                if payload is not None:
                    messages[fact(event)] = json.dumps(payload)
            cursor = events[-1].id
            self._outbox.enqueue(cursor, messages)

    def deliver(self, now: float) -> int:
        """Send what is due; returns how many were sent."""
        if not self._delivering.acquire(blocking=False):
            return 0
        try:
            return self._deliver(now)
        finally:
            self._delivering.release()

    def _deliver(self, now: float) -> int:
        due = self._outbox.pending(now)
        if not due:
            return 0
        url = self._url()
        sent = 0
        for one in due:
            if not url:
                self._outbox.settle(one.id, "skipped", "no Slack address is configured")
                continue
            if not self._send(url, one, now):
                break
            sent += 1
        return sent

    def _url(self) -> str:
        try:
            with self._secret.open() as file:
                return file.read(URL_LIMIT).strip()
        except OSError:
            return ""

    def _send(self, url: str, one: Message, now: float) -> bool:
        """Send one message; False when the rest should wait too."""
        client = WebhookClient(
            url,
            timeout=TIMEOUT,
            retry_handlers=[
                RateLimitErrorRetryHandler(max_retry_count=1),
                ServerErrorRetryHandler(max_retry_count=1),
            ],
        )
        try:
            answer = client.send_dict(json.loads(one.payload))
            code, words = answer.status_code, str(answer.body)
            after = float((answer.headers or {}).get("Retry-After", 0) or 0)
        except Exception as error:
            code, words, after = 0, type(error).__name__, 0.0
        if code == 200:
            self._outbox.settle(one.id, "sent")
            return True
        words = f"{code} {words[:200]}".replace(url, "***")
        refused = 400 <= code < 500 and code != 429
        attempts = one.attempts + 1
        if attempts >= (REFUSED_ATTEMPTS if refused else ATTEMPTS):
            log.warning("Slack does not take a message, giving it up: %s", words)
            self._outbox.settle(one.id, "failed", words)
            return False
        wait = max(after, min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempts - 1, 20)))
        self._outbox.settle(one.id, "pending", words, now + wait)
        return False
