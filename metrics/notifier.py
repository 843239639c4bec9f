"""Notifier: turns events into messages in the outbox and delivers them to people and the forge.

Delivery is at least once: after a crash between sending a message and recording that it was sent,
that message is sent again. Delivery runs in a separate thread and never delays a reconcile cycle. A
route that does not respond holds up no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from metrics.background import Errand
from metrics.channels import Channel, SlackChannel, WebhookChannel
from metrics.commits import CommitStatus, Forge, commit_url_of, status_of
from metrics.facts import Fact, Links, activation_of, beginning_of, is_news, make_fact
from metrics.notices import NEWS, NOTICES, notice_of
from metrics.redaction import Scrubber
from metrics.routes import Route, Statuses, Waiting
from metrics.slackbot import SlackBot
from reconciler.core.events import Event
from reconciler.core.model import MessageState
from reconciler.settings import STATUSES, NotifySettings, RouteSettings, StatusSettings

log = logging.getLogger(__name__)

PAGE = 1000  # events read at once
BATCH = 500  # messages of a route that one delivery considers
BACK = 200  # earlier events searched, to see whether a fact was already reported

PATIENCE = 30.0  # seconds that a delivery waits for its receivers

FACT: TypeAdapter[Fact] = TypeAdapter(Fact)
STATUS: TypeAdapter[CommitStatus] = TypeAdapter(CommitStatus)


class Outbox(Protocol):
    """Part of the store that the notifier uses."""

    def events(
        self,
        *,
        after_id: int = 0,
        object: str | None = None,  # noqa: A002 - the field's name in Event
        kinds: Sequence[str] = (),
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Event]:
        """Return events, oldest first unless `newest_first`."""

    def notified(self) -> int:
        """Return the id of the last event that was processed."""

    def enqueue(self, cursor: int, messages: dict[str, str]) -> None:
        """Queue messages and advance the cursor in one transaction."""

    def pending(self, limit: int = 50, route: str = "") -> list[Any]:
        """Return a route's messages to send, with `id`, `payload` and `attempts`."""

    def settle(self, message: int, state: MessageState, error: str = "") -> None:
        """Record the outcome of a message."""

    def forget_routes(self, known: Sequence[str]) -> int:
        """Skip messages for routes that no longer exist; return how many were skipped."""

    def named(self, key: str) -> str | None:
        """Return a saved text, or None."""

    def name(self, key: str, value: str) -> None:
        """Save a text."""


def _channel(settings: RouteSettings, secrets_dir: Path, outbox: Outbox) -> Channel:
    """Return the channel that a route's settings describe."""
    directory = secrets_dir / settings.secret
    if settings.kind == "webhook":
        return WebhookChannel(directory)
    if settings.channel:
        return SlackBot(directory, settings.channel, settings.name, outbox)
    return SlackChannel(directory)


class Notifier:
    """Notifier that reports each fact once, to the routes in the settings."""

    def __init__(
        self,
        outbox: Outbox,
        secrets_dir: Path,
        public_url: str = "",
        *,
        notify: NotifySettings | None = None,
        statuses: StatusSettings | None = None,
        git_url: str = "",
        log_of: Callable[[str], Path] | None = None,
    ) -> None:
        self._outbox = outbox
        self._settings = notify or NotifySettings()
        self._status_settings = statuses or StatusSettings()
        self._log_of = log_of
        commit_url = self._settings.commit_url or commit_url_of(
            git_url, self._status_settings.forge
        )
        self._links = Links(public_url, commit_url)
        self._scrub = Scrubber(secrets_dir)
        self._routes = [
            Route(settings, _channel(settings, secrets_dir, outbox), self._settings, outbox.settle)
            for settings in self._settings.routes
        ]
        self._statuses = Statuses(Forge(self._status_settings, secrets_dir, git_url), outbox.settle)
        self._errands: dict[str, Errand] = {}
        self._delivering = threading.Lock()
        self._tidied = False

    # ------------------------------------------------------------------------------- enqueue

    def enqueue(self) -> None:
        """Queue messages for events since the last call."""
        cursor = self._outbox.notified()
        while True:
            events = self._outbox.events(after_id=cursor, limit=PAGE)
            if not events:
                return
            messages = {key: text for event in events for key, text in self._messages(event)}
            cursor = events[-1].id
            self._outbox.enqueue(cursor, messages)

    def _messages(self, event: Event) -> Iterator[tuple[str, str]]:
        """Yield the messages for an event, each with its unique key."""
        if self._status_settings.forge:
            status = status_of(event, self._status_settings.context, self._links, self._scrub.clean)
            if status is not None:
                yield f"{STATUSES}:event-{event.id}", STATUS.dump_json(status).decode()
        if notice_of(event.kind) is None:
            return
        before = self._before(event)
        began = beginning_of(event, before)
        fact = make_fact(event, self._links, self._last_lines, self._scrub.clean, began)
        if fact is None:
            return
        wanted = [r for r in self._routes if r.wants(fact)]
        if not wanted or not is_news(event, before):
            return
        fact = replace(fact, activation=activation_of(event, before))
        payload = FACT.dump_json(fact).decode()
        for route in wanted:
            yield f"{route.name}:event-{event.id}", payload

    def _before(self, event: Event) -> Sequence[Event]:
        """Return the earlier events of the same object, newest first."""
        events = self._outbox.events(
            object=event.object, kinds=sorted({*NOTICES, *NEWS}), limit=BACK, newest_first=True
        )
        return [other for other in events if other.id < event.id]

    def _last_lines(self, build: str) -> Sequence[str]:
        if self._log_of is None or not self._settings.log_lines:
            return ()
        return last_lines(self._log_of(build), self._settings.log_lines)

    # ------------------------------------------------------------------------------- deliver

    def deliver(self, now: float) -> int:
        """Send what is due; return how many messages of the outbox were settled as sent.

        `now` is from a clock that nobody sets, so that no message waits for a wrong time.
        Receivers are served in parallel. The delivery does not wait for a receiver that takes
        longer than PATIENCE.
        """
        if not self._delivering.acquire(blocking=False):
            return 0
        try:
            self._tidy()
            if not self._outbox.pending(1):
                return 0
            lines: list[Route | Statuses] = [*self._routes, self._statuses]
            begun = [line for line in lines if self._begin(line, now)]
            until = time.monotonic() + PATIENCE
            return sum(self._errands[line.name].result(until) for line in begun)
        finally:
            self._delivering.release()

    def _begin(self, line: Route | Statuses, now: float) -> bool:
        """Start to deliver what is due for one receiver, unless a delivery is still running."""
        earlier = self._errands.get(line.name)
        if earlier is not None and earlier.is_running():
            return False
        if isinstance(line, Route):
            facts = self._due(line.name, FACT)
            errand = Errand(lambda: line.deliver(facts, now)) if facts else None
        else:
            statuses = self._due(line.name, STATUS)
            errand = Errand(lambda: line.deliver(statuses, now)) if statuses else None
        if errand is None:
            return False
        self._errands[line.name] = errand
        return True

    def _due(self, route: str, kind: TypeAdapter[Any]) -> list[Waiting[Any]]:
        waiting = []
        for row in self._outbox.pending(BATCH, route):
            try:
                waiting.append(Waiting(row.id, row.attempts, kind.validate_json(row.payload)))
            except ValueError:
                self._outbox.settle(
                    row.id, MessageState.FAILED, "it was written by another version"
                )
        return waiting

    def _tidy(self) -> None:
        """Skip messages for routes that were removed from the settings. Runs once."""
        if self._tidied:
            return
        gone = self._outbox.forget_routes([*(r.name for r in self._routes), STATUSES])
        self._tidied = True
        if gone:
            log.warning("%d messages are for routes that are not set any more: skipped", gone)


def last_lines(path: Path, count: int, limit: int = 16384) -> Sequence[str]:
    """Return the last non-empty lines in the last `limit` bytes of a file; () if unreadable."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            text = file.read(limit).decode(errors="replace")
    except OSError:
        return ()
    lines = text.splitlines()[1 if size > limit else 0 :]
    return [line.rstrip() for line in lines if line.strip()][-count:]
