"""Wake-ups between daemons that share one PostgreSQL, by LISTEN and NOTIFY.

On SQLite there is one daemon, which wakes itself: nothing is sent and nothing is listened to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

CHANNEL = "groundcrew"
POLL, LOOK = "poll", "look"  # read the environments repo; read the records
SILENCE = 5.0  # seconds between checks whether the listener should stop
AGAIN = 5.0  # seconds before it reconnects


def tell(engine: Engine, word: str) -> None:
    """Wake the leader of this database; if that fails, it sees the change at its next poll."""
    if engine.dialect.name != "postgresql":
        return
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_notify(:c, :w)"), {"c": CHANNEL, "w": word})
    except SQLAlchemyError as error:
        log.info("the leader was not woken: %s", type(error).__name__)


def listen(engine: Engine, hear: Callable[[str], None], stop: threading.Event) -> None:
    """Call `hear` with each word received, until `stop`; return at once on SQLite."""
    if engine.dialect.name != "postgresql":
        return
    import psycopg

    while not stop.is_set():
        try:
            with psycopg.connect(_plain(engine.url), autocommit=True, connect_timeout=5) as link:
                link.execute(f"LISTEN {CHANNEL}")
                hear(POLL)  # for messages sent while nobody listened
                while not stop.is_set():
                    for notification in link.notifies(timeout=SILENCE, stop_after=1):
                        hear(notification.payload)
        except psycopg.Error as error:
            log.info("wake-ups are not heard for a while: %s", type(error).__name__)
            stop.wait(AGAIN)


def _plain(url: URL) -> str:
    """Return the URL in the form that the driver itself reads."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
