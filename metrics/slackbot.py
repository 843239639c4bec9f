"""Slack channel that uses a bot token and keeps each activation's messages in one thread.

Incoming webhooks cannot use threads. The first message of an activation opens the thread. Failures
are also shown in the channel itself. See https://docs.slack.dev/reference/methods/chat.postMessage
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from metrics.channels import (
    TIMEOUT,
    Outcome,
    Response,
    fingerprint,
    judge,
    slack_payload,
    unanswered,
    without_blocks,
)
from metrics.facts import Fact
from reconciler.documents import Document, Malformed, parse
from reconciler.http_client import Client
from reconciler.secrets import read

API = "https://slack.com/api/"
ANSWER_LIMIT = 1 << 20  # bytes
KEPT = 500  # threads that are remembered
WORD = re.compile(r"^[a-z0-9_]{1,60}$")  # an error code from Slack
LATER = frozenset(
    {
        "fatal_error",
        "internal_error",
        "rate_limited",
        "ratelimited",
        "request_timeout",
        "service_unavailable",
        "team_added_to_org",
    }
)
REJECTED = frozenset(
    {
        "invalid_arguments",
        "invalid_blocks",
        "invalid_blocks_format",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_text",
    }
)
THREAD_GONE = frozenset({"cannot_reply_to_message", "message_not_found", "thread_not_found"})
TOKEN = "its token is not valid any more; write a new one into the secret's file `token`"  # noqa: S105
WORDS = {
    "account_inactive": TOKEN,
    "invalid_auth": TOKEN,
    "not_authed": TOKEN,
    "token_expired": TOKEN,
    "token_revoked": TOKEN,
    "channel_not_found": "there is no such channel, or the bot may not see it; set `channel` to "
    "the channel's id, and invite the bot there",
    "is_archived": "the channel is archived; set `channel` to another one",
    "missing_scope": "the bot lacks the scope chat:write",
    "not_in_channel": "the bot is not in the channel; invite it there",
}


class Posted(Document):
    """Message as Slack has posted it."""

    thread_ts: str = ""


class Said(Document):
    """Answer of a method of Slack's Web API: what is read of it."""

    ok: bool = False
    error: str = ""
    ts: str = ""
    message: Posted = Posted()


@dataclass(frozen=True, slots=True)
class SlackAnswer:
    """Answer of Slack, with the status and headers of HTTP."""

    code: int
    headers: Mapping[str, str]
    said: Said


class Notes(Protocol):
    """Part of the store that the bot uses."""

    def named(self, key: str) -> str | None:
        """Return a saved text, or None."""

    def name(self, key: str, value: str) -> None:
        """Save a text."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Message that opened the thread of each activation in one channel, kept in the store."""

    notes: Notes
    key: str

    def of(self, activation: int) -> str:
        """Return the thread of an activation, or "" if there is none yet."""
        return self._read().get(str(activation), "")

    def keep(self, activation: int, thread: str) -> None:
        """Remember a thread; the oldest is forgotten when there are too many."""
        threads = {**self._read(), str(activation): thread}
        self.notes.name(self.key, json.dumps(dict(list(threads.items())[-KEPT:])))

    def _read(self) -> dict[str, str]:
        return dict(json.loads(self.notes.named(self.key) or "{}"))


class SlackBot:
    """Slack channel to which messages are posted with the token in `<directory>/token`."""

    def __init__(self, directory: Path, channel: str, route: str, notes: Notes) -> None:
        self._token = directory / "token"
        self._channel = channel
        self._threads = Threads(notes, f"threads:{route}:{channel}")

    def target(self) -> str:
        """Return a digest of token and channel."""
        return fingerprint(read(self._token), self._channel)

    def send(self, facts: Sequence[Fact]) -> Response:
        """Send one message in the thread of its activation; a digest goes outside all threads."""
        activation = facts[0].activation if len(facts) == 1 else 0
        body = {"channel": self._channel, "unfurl_links": False}
        body |= slack_payload(facts)
        thread = self._threads.of(activation) if activation else ""
        if thread:
            body |= {"thread_ts": thread, "reply_broadcast": facts[0].failed}
        answered = self._post(body)
        if _error(answered) in THREAD_GONE:  # it was deleted; this message opens a new one
            body = {k: v for k, v in body.items() if k not in ("thread_ts", "reply_broadcast")}
            answered = self._post(body)
        response = _meaning(answered)
        if response.outcome is Outcome.REJECTED:
            answered = self._post(
                {k: v for k, v in body.items() if k != "blocks"} | without_blocks(body)
            )
            response = _meaning(answered)
        taken = response.outcome is Outcome.TAKEN
        if taken and activation and isinstance(answered, SlackAnswer):
            # An answer without a thread_ts was posted in the channel: the parent was deleted.
            opened = answered.said.message.thread_ts or answered.said.ts
            if opened and opened != thread:
                self._threads.keep(activation, opened)
        return response

    def _post(self, body: dict[str, Any]) -> SlackAnswer | Response:
        return _call(read(self._token), "chat.postMessage", body)


def check_token(token: str) -> Response:
    """Ask Slack whether a token is valid. No message is sent."""
    return _meaning(_call(token, "auth.test", {}))


def _call(token: str, method: str, body: dict[str, Any]) -> SlackAnswer | Response:
    """Return Slack's answer, even if it is an error, or a Response if there was none."""
    if not token.isascii() or any(c.isspace() for c in token):
        return Response(Outcome.REFUSED, "the secret's file `token` does not hold a token")
    try:
        with Client(timeout=TIMEOUT, limit=ANSWER_LIMIT) as client:
            answer = client.post(
                f"{API}{method}", json=body, headers={"Authorization": f"Bearer {token}"}
            )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # its text may hold a secret
        return unanswered(error)
    try:
        said = parse(Said, answer.content, "the answer")
    except Malformed:
        said = Said()
    known = said.ok or WORD.match(said.error)
    if answer.status_code == httpx.codes.OK and not known:
        return Response(Outcome.LATER, "the answer is not Slack's; is there a proxy before it?")
    return SlackAnswer(answer.status_code, answer.headers, said)


def _error(answered: SlackAnswer | Response) -> str:
    return "" if isinstance(answered, Response) else answered.said.error


def _meaning(answered: SlackAnswer | Response) -> Response:
    """Return the response that Slack's answer amounts to."""
    if isinstance(answered, Response):
        return answered
    code, error = answered.code, _error(answered)
    if code != httpx.codes.OK or error in LATER:
        text = error if WORD.match(error) else ""
        code = code if code != httpx.codes.OK else httpx.codes.SERVICE_UNAVAILABLE
        return judge(code, text, time.time(), answered.headers.get("retry-after", ""))
    if not error:
        return Response(Outcome.TAKEN)
    text = f"Slack says {error}" + (f": {WORDS[error]}" if error in WORDS else "")
    return Response(Outcome.REJECTED if error in REJECTED else Outcome.REFUSED, text)
