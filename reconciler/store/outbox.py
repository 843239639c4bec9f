"""Outbox of messages to send, each at most once per route and fact.

`dedupe` is "<route>:<fact>"; the meaning of the payload is up to the route.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from reconciler.core.model import MessageState
from reconciler.store import schema

PENDING = MessageState.PENDING.value


@dataclass(frozen=True, slots=True)
class Message:
    """Message to send; `payload` is JSON, `dedupe` names the fact that it reports."""

    id: int
    dedupe: str
    payload: str
    attempts: int


class Outbox(ABC):
    """Part of the store that the notifier uses; it needs no lease."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Connection]: ...

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Connection]: ...

    def enqueue(self, cursor: int, messages: Mapping[str, str]) -> None:
        """Queue messages (fact → payload) and save the id of the last event, in one transaction."""
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
                            dedupe=dedupe, payload=payload, state=PENDING, attempts=0, error=""
                        )
                    )
            here = schema.meta.c.key == "notified"
            done = connection.execute(update(schema.meta).where(here).values(value=str(cursor)))
            if done.rowcount == 0:
                connection.execute(insert(schema.meta).values(key="notified", value=str(cursor)))

    def notified(self) -> int:
        """Return the id of the last event that was considered for messages."""
        with self._reading() as connection:
            last_id = connection.execute(
                select(schema.meta.c.value).where(schema.meta.c.key == "notified")
            ).scalar()
            return int(last_id or 0)

    def pending(self, limit: int = 50, route: str = "") -> list[Message]:
        """Return messages to send, oldest first; of all routes unless one is named."""
        table = schema.outbox
        query = select(table).where(table.c.state == PENDING)
        if route:
            query = query.where(table.c.dedupe.startswith(f"{route}:", autoescape=True))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(table.c.id).limit(limit))
            return [Message(r.id, r.dedupe, r.payload, r.attempts) for r in rows]

    def settle(self, message: int, state: MessageState, error: str = "") -> None:
        """Record a message's outcome; it is pending if it will be tried again."""
        table = schema.outbox
        with self._writing() as connection:
            connection.execute(
                update(table)
                .where(table.c.id == message)
                .values(state=state.value, error=error[:1000], attempts=table.c.attempts + 1)
            )

    def forget_routes(self, known: Sequence[str]) -> int:
        """Skip pending messages of routes that are not `known`; return how many were skipped."""
        table = schema.outbox
        others = [
            ~table.c.dedupe.startswith(f"{route}:", autoescape=True) for route in sorted(known)
        ]
        with self._writing() as connection:
            done = connection.execute(
                update(table)
                .where(table.c.state == PENDING, *others)
                .values(state=MessageState.SKIPPED.value, error="its route is not set any more")
            )
            return int(done.rowcount)

    def message_counts(self) -> dict[str, int]:
        """Return the number of messages in each state."""
        table = schema.outbox
        with self._reading() as connection:
            rows = connection.execute(select(table.c.state, func.count()).group_by(table.c.state))
            return {str(state): int(count) for state, count in rows}

    def late_messages(self) -> int:
        """Return the number of pending messages that were tried, not counting untried ones."""
        table = schema.outbox
        with self._reading() as connection:
            query = select(func.count()).where(table.c.state == PENDING, table.c.attempts > 0)
            return int(connection.execute(query).scalar_one())
