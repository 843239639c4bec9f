"""HTTP server over a fleet, without a daemon, like a replica that waits for the lease."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from reconciler.api.app import Deps, create_app
from reconciler.api.server import Server
from reconciler.core.model import Change
from reconciler.settings import HttpSettings
from reconciler.share.share import Share
from reconciler.store.store import Store
from tests.fakes.fleet import fill, place_builds

NAMES = {"read": "Team reader", "operate": "On-call engineer"}
READER, OPERATOR = "token-of-a-reader", "token-of-an-operator"


class Served:
    """Store, share and an application over them; `start()` serves it on loopback."""

    def __init__(self, root: Path, count: int, *, tokens: bool = True, **http: Any) -> None:
        self.root = root
        self.store = Store(f"sqlite:///{root / 'state' / 'groundcrew.db'}")
        fill(self.store, count)
        self.share = Share(root / "share")
        place_builds(self.share, min(count, 9))
        self.logs = root / "logs"
        self.logs.mkdir()
        self.woken = 0
        if tokens:
            self.write_tokens(read=READER, operate=OPERATOR)
        deps = Deps(
            registry=CollectorRegistry(),
            secrets_dir=root / "secrets",
            store=self.store,
            share=self.share,
            cycle_age=lambda: 0.0,
            not_ready=lambda: "",
            poll=lambda: None,
            wake=self._wake,
            log_of=lambda key: self.logs / f"{key}.log",
            http=HttpSettings(**http),
            commit_url="https://git.example/envs/commit/{revision}",
            file_url="https://git.example/envs/blob/{revision}/{path}#L{line}",
        )
        self.app = create_app(deps)
        self.server: Server | None = None

    def _wake(self) -> None:
        self.woken += 1

    def write_tokens(self, **by_role: str) -> None:
        """Accept these tokens: role=token."""
        path = self.root / "secrets" / "api" / "tokens"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"{hashlib.sha256(token.encode()).hexdigest()} {role} {NAMES[role]}"
            for role, token in by_role.items()
        ]
        path.write_text("\n".join(lines) + "\n")

    def start(self) -> str:
        """Start to listen; return the URL."""
        self.server = Server(self.app, "127.0.0.1", 0)
        self.server.start()
        return f"http://127.0.0.1:{self.server.port}"

    def stop(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.stop()
        else:
            self.app.state.close()
        self.store.close()


def write(served: Served, change: Change) -> None:
    """Write a change like a daemon."""
    lease = served.store.acquire("test", 60.0)
    assert lease is not None
    served.store.write(lease, change)
