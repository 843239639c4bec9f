"""The outbox: messages that are due, each at most once per route and fact.

`dedupe` is "<route>:<fact>"; the payload is its route's matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from reconciler.store import schema


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send; `payload` is JSON, `dedupe` names the fact it tells."""

    id: int
    dedupe: str
    payload: str
    attempts: int


class Outbox(ABC):
    """The part of the store that the notifier uses; it needs no lease."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Connection]: ...

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Connection]: ...

    def enqueue(self, cursor: int, messages: Mapping[str, str]) -> None:
        """Queue messages (fact → payload) and note up to which event they tell, together."""
        table = schema.outbox
        with self._writing() as connection:
            known = set(
                connection.execute(
                    select(table.c.dedupe).where(table.c.dedupe.in_(list(messages)))
                ).scalars()
            )
            for dedupe, payload in messages.items():
                if dedupe not in known:
                    connection.execute(
                        insert(table).values(
                            dedupe=dedupe, payload=payload, state="pending", attempts=0,
                            not_before=0.0, error="",
                        )
                    )  # fmt: skip
            here = schema.meta.c.key == "notified"
            done = connection.execute(update(schema.meta).where(here).values(value=str(cursor)))
            if done.rowcount == 0:
                connection.execute(insert(schema.meta).values(key="notified", value=str(cursor)))

    def notified(self) -> int:
        """Id of the last event that was looked at for messages."""
        with self._reading() as connection:
            found = connection.execute(
                select(schema.meta.c.value).where(schema.meta.c.key == "notified")
            ).scalar()
            return int(found or 0)

    def pending(self, now: float, limit: int = 50, route: str = "") -> list[Message]:
        """Messages that are due, oldest first; of every route unless one is named."""
        table = schema.outbox
        query = select(table).where(table.c.state == "pending", table.c.not_before <= now)
        if route:
            query = query.where(table.c.dedupe.startswith(f"{route}:", autoescape=True))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(table.c.id).limit(limit))
            return [Message(r.id, r.dedupe, r.payload, r.attempts) for r in rows]

    def settle(self, message: int, state: str, error: str = "", not_before: float = 0.0) -> None:
        """Note what became of a message: sent, failed, skipped, or pending for another try."""
        table = schema.outbox
        with self._writing() as connection:
            connection.execute(
                update(table)
                .where(table.c.id == message)
                .values(
                    state=state,
                    error=error[:1000],
                    not_before=not_before,
                    attempts=table.c.attempts + 1,
                )
            )

    def forget_routes(self, known: Sequence[str]) -> int:
        """Skip messages that wait for a route that is not `known`; returns how many."""
        table = schema.outbox
        others = [
            ~table.c.dedupe.startswith(f"{route}:", autoescape=True) for route in sorted(known)
        ]
        with self._writing() as connection:
            done = connection.execute(
                update(table)
                .where(table.c.state == "pending", *others)
                .values(state="skipped", error="its route is not set any more")
            )
            return int(done.rowcount)

    def message_counts(self) -> dict[str, int]:
        """How many messages are in each state."""
        table = schema.outbox
        with self._reading() as connection:
            rows = connection.execute(select(table.c.state, func.count()).group_by(table.c.state))
            return {str(state): int(count) for state, count in rows}

    def late_messages(self) -> int:
        """How many messages were tried and not taken; those that are only gathered do not count."""
        table = schema.outbox
        with self._reading() as connection:
            query = select(func.count()).where(table.c.state == "pending", table.c.attempts > 0)
            return int(connection.execute(query).scalar_one())
