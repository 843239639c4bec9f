"""Delivery to routes and the forge: single messages, digests and retries.

Each route, and the forge, receives its messages in order. While it refuses them or does not
respond, all its messages wait; they are retried with growing delays for a day.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from metrics.channels import Channel, Outcome, Response
from metrics.commits import CommitStatus, Forge
from metrics.facts import Fact
from metrics.notices import Severity
from reconciler.core.events import EventKind
from reconciler.core.model import MessageState
from reconciler.settings import STATUSES, NotifySettings, RouteSettings

log = logging.getLogger(__name__)

FIRST_WAIT = 5.0  # seconds; doubles
FIRST_REFUSED_WAIT = 60.0
LONGEST_WAIT = 900.0
ATTEMPTS = 100  # about a day
FAULT = Response(Outcome.REJECTED, "a fault of Groundcrew, which its log describes")

T = TypeVar("T")


class Settle(Protocol):
    """Method that records a message's outcome: `Outbox.settle`."""

    def __call__(self, message: int, state: MessageState, error: str = "") -> None:
        """Record the outcome."""


@dataclass(frozen=True, slots=True)
class Waiting(Generic[T]):
    """Message of the outbox that is due."""

    id: int
    attempts: int
    content: T


class Line:
    """Receiver that holds messages back while it refuses them, and records their outcome."""

    def __init__(self, name: str, settle: Settle) -> None:
        self.name = name
        self._settle = settle
        self._held_until = 0.0
        self._held_target = ""

    def is_held(self, target: str, now: float) -> bool:
        """Return True if all messages must wait; a new address or credential is tried at once."""
        return now < self._held_until and target == self._held_target

    def ask(self, send: Callable[[], Response]) -> Response:
        """Return the receiver's response, or FAULT if sending raises."""
        try:
            return send()
        except Exception as error:  # its text may hold a secret
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error(
                "%s: %s at %s:%d while sending a message; please report it",
                self.name,
                type(error).__name__,
                Path(frame.filename).name,
                frame.lineno or 0,
            )
            return FAULT

    def settle(
        self, batch: Sequence[Waiting[T]], answer: Response, target: str, now: float
    ) -> bool:
        """Record the answer for a batch; return False if the remaining messages should wait too."""
        if answer.outcome is Outcome.TAKEN:
            for one in batch:
                self._settle(one.id, MessageState.SENT)
            return True
        if answer.outcome is Outcome.REJECTED:
            log.warning("%s does not take a message, giving it up: %s", self.name, answer.words)
            for one in batch:
                self._settle(one.id, MessageState.FAILED, answer.words)
            return True
        attempts = max(one.attempts for one in batch) + 1
        first = FIRST_REFUSED_WAIT if answer.outcome is Outcome.REFUSED else FIRST_WAIT
        wait = max(answer.after, min(LONGEST_WAIT, first * 2 ** min(attempts - 1, 20)))
        self._held_until, self._held_target = now + wait, target
        log.warning("%s: %s; tried again in %.0f s", self.name, answer.words, wait)
        for one in batch:
            if one.attempts + 1 >= ATTEMPTS:
                self._settle(one.id, MessageState.FAILED, answer.words)
            else:
                self._settle(one.id, MessageState.PENDING, answer.words)
        return False

    def skip(self, batch: Sequence[Waiting[T]], why: str) -> None:
        """Record that messages are not sent."""
        for one in batch:
            self._settle(one.id, MessageState.SKIPPED, why)


class Route:
    """Route from the settings."""

    def __init__(
        self, settings: RouteSettings, channel: Channel, notify: NotifySettings, settle: Settle
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._channel = channel
        self._above = notify.digest_above
        self._seconds = notify.digest_seconds
        self._line = Line(settings.name, settle)
        self._recent: list[float] = []  # times at which single messages were sent
        self._gather_until = 0.0

    def wants(self, fact: Fact) -> bool:
        """Return True if the route wants the fact's team and severity."""
        if fact.severity not in self._settings.severities:
            return False
        if not fact.team:
            return "*" in self._settings.teams
        return any(fnmatchcase(fact.team, glob) for glob in self._settings.teams)

    def deliver(self, due: Sequence[Waiting[Fact]], now: float) -> int:
        """Send what is due, one by one or as a digest; return how many were sent."""
        target = self._channel.target()
        if not target:
            self._line.skip(due, "no address is configured")
            return 0
        if self._line.is_held(target, now):
            return 0
        sent = 0
        batches = self._batches(self._without_outrun(due), now)
        while batches:
            batch = batches.pop(0)
            facts = [one.content for one in batch]
            answer = self._line.ask(partial(self._channel.send, facts))
            if answer is FAULT and len(batch) > 1:  # one that cannot be sent takes no other with it
                batches[:0] = [[one] for one in batch]
                continue
            if not self._line.settle(batch, answer, target, now):
                break
            if answer.outcome is Outcome.TAKEN:
                sent += len(batch)
                self._note_sent(batch, now)
        return sent

    def _note_sent(self, batch: Sequence[Waiting[Fact]], now: float) -> None:
        """Remember when single messages were sent; after a digest, gather messages for a while."""
        if len(batch) > 1:
            self._gather_until = now + self._seconds
        elif batch[0].content.severity != Severity.CRITICAL:
            self._recent.append(now)
            if len(self._recent) > self._above:
                self._gather_until = now + self._seconds

    def _without_outrun(self, due: Sequence[Waiting[Fact]]) -> list[Waiting[Fact]]:
        """Return the messages without starts of activations whose end is also due."""
        ended = {
            one.content.object: one.id
            for one in due
            if one.content.object.startswith("instance/")
            and one.content.kind is not EventKind.ACTIVATION_STARTED
        }
        outrun = [
            one
            for one in due
            if one.content.kind is EventKind.ACTIVATION_STARTED
            and ended.get(one.content.object, 0) > one.id
        ]
        self._line.skip(outrun, "told with its outcome")
        gone = {one.id for one in outrun}
        return [one for one in due if one.id not in gone]

    def _batches(self, due: Sequence[Waiting[Fact]], now: float) -> list[list[Waiting[Fact]]]:
        """Return batches: each critical fact alone, the others alone or as one digest if many."""
        loud = [[one] for one in due if one.content.severity == Severity.CRITICAL]
        rest = [one for one in due if one.content.severity != Severity.CRITICAL]
        if not rest or now < self._gather_until:
            return loud
        self._recent = [at for at in self._recent if now - self._seconds < at <= now]
        if len(self._recent) + len(rest) > self._above:
            return [*loud, rest]
        return [*loud, *([one] for one in rest)]


class Statuses:
    """Commit statuses waiting to be sent to the forge."""

    name = STATUSES

    def __init__(self, forge: Forge, settle: Settle) -> None:
        self._forge = forge
        self._line = Line("commit statuses", settle)

    def deliver(self, due: Sequence[Waiting[CommitStatus]], now: float) -> int:
        """Send the newest state of each status; return how many were sent."""
        target = self._forge.target()
        if not target:
            self._line.skip(due, "no token is configured")
            return 0
        if self._line.is_held(target, now):
            return 0
        newest = {(one.content.sha, one.content.context): one for one in due}
        self._line.skip([o for o in due if o not in newest.values()], "a newer state is sent")
        sent = 0
        for one in newest.values():
            answer = self._line.ask(partial(self._forge.send, one.content))
            if not self._line.settle([one], answer, target, now):
                break
            sent += answer.outcome is Outcome.TAKEN
        return sent
