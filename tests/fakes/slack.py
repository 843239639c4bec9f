"""Fake of Slack's chat.postMessage and auth.test on loopback, as documented.

https://docs.slack.dev/reference/methods/chat.postMessage: `ok: false` comes with 200, the limit on
requests with 429 and Retry-After. A reply has the message that it answers in its `thread_ts`. A
reply to a message that was deleted becomes a message of the channel, without one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.receiver import JSON, Receiver, Said

TOKEN = "xoxb-1234-s3cret-token"
CHANNEL = "C0123456789"


@dataclass(frozen=True)
class Posted:
    """Message in the channel; `thread` is the one that it answers, `shown` in the channel too."""

    ts: str
    text: str
    blocks: list[Any] | None
    thread: str | None
    shown: bool


@dataclass
class Slack:
    """Workspace with one channel and one bot in it."""

    posted: list[Posted] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)  # to return next, one each

    def __post_init__(self) -> None:
        self.receiver = Receiver(self._answer)
        self.api = f"{self.receiver.root}/api/"

    def close(self) -> None:
        """Stop serving."""
        self.receiver.close()

    def _answer(self, method: str, path: str, body: bytes) -> Said:
        if method != "POST" or path not in ("/api/chat.postMessage", "/api/auth.test"):
            return Said(404)
        if self.errors:
            return _said(ok=False, error=self.errors.pop(0))
        if path == "/api/auth.test":
            return _said(ok=True, url="https://acme.slack.com/", user="groundcrew")
        asked = json.loads(body)
        if asked["channel"] != CHANNEL:
            return _said(ok=False, error="channel_not_found")
        thread = asked.get("thread_ts")
        if thread in self.deleted:
            thread = None
        made = Posted(
            f"1700000000.{len(self.posted):06}",
            asked["text"],
            asked.get("blocks"),
            thread,
            thread is None or asked.get("reply_broadcast", False),
        )
        self.posted.append(made)
        shown = {"text": made.text, "ts": made.ts} | ({"thread_ts": thread} if thread else {})
        return _said(ok=True, channel=CHANNEL, ts=made.ts, message=shown)


def _said(**document: object) -> Said:
    return Said(200, JSON, json.dumps(document))
