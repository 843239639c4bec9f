"""Outgoing messages of a daemon: events in a real store, and a clock that the test sets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from metrics.notifier import Notifier
from reconciler.core.model import Change
from reconciler.settings import NotifySettings, RouteSettings
from reconciler.store.store import Lease, Store
from tests.fakes.events import event as stored_event

SHA = "0123456789abcdef0123456789abcdef01234567"
MINUTE = 60.0
HOUR = 3600.0


class Post:
    """Store with events, secret files, and a notifier over both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(f"sqlite:///{root}/db")
        self.store.migrate()
        lease = self.store.acquire("me", 3600)
        assert lease is not None
        self.lease: Lease = lease
        self.now = 1_000_000.0
        self.settings: dict[str, Any] = {}
        self.start()

    def start(self, **settings: Any) -> None:
        """Restart the daemon, with other settings if any are given."""
        self.settings |= settings
        self.notifier = Notifier(self.store, self.root / "secrets", **self.settings)

    def secret(self, directory: str, **files: str) -> None:
        folder = self.root / "secrets" / directory
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")

    def happens(
        self, kind: str, name: str = "instance/prod", team: str = "red", **more: Any
    ) -> None:
        data = {"from": "1" * 16, "to": "2" * 16, "environment": "analytics"} | more.pop("data", {})
        told = stored_event(
            self.now,
            kind,
            name,
            team,
            more.pop("reason", kind),
            more.pop("message", "words"),
            more.pop("revision", SHA),
            data,
        )
        assert not more
        self.store.write(self.lease, Change(events=(told,)))
        self.notifier.enqueue()

    def deliver(self, after: float = 0.0) -> int:
        self.now += after
        return self.notifier.deliver(self.now)

    def counts(self) -> dict[str, int]:
        return self.store.message_counts()


def routes(*found: RouteSettings, **more: Any) -> NotifySettings:
    return NotifySettings(routes=found, **more)


def dead_address() -> str:
    """Return an address on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/services/s3cret-address"
