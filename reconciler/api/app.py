"""HTTP application: `/metrics`, `/healthz`, `/readyz`, `/hooks/…`, `/api/v1/…` and the pages.

It reads the records from the store, and changes nothing itself: a webhook wakes the daemon, and
operators' requests are queued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.api.auth import People
from reconciler.api.error_handlers import Refusing
from reconciler.api.hooks import Hooks
from reconciler.api.pages.render import Renderer
from reconciler.api.pages.site import Pages
from reconciler.api.request_queue import Asking
from reconciler.api.share_reader import ShareReader
from reconciler.api.streams import Streams
from reconciler.api.v1 import Handlers
from reconciler.api.view import View
from reconciler.core.errors import GroundcrewError
from reconciler.settings import HttpSettings
from reconciler.share.share import Share
from reconciler.store.store import Store

CYCLE_LIMIT = (
    180.0  # seconds without a cycle after which the loop counts as stuck; it sleeps up to 60
)
SCRAPES = 2  # parallel scrapes of the metrics
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Deps:
    """Dependencies of the application.

    `cycle_age` returns the seconds since the daemon's last cycle ended; `not_ready` returns why the
    daemon is not ready yet, "" if it is; `poll` makes it poll the repo at once, `wake` makes it
    read the requests; `log_of` returns the path of a build's log by its key; `commit_url` is the
    URL of a commit's page, with {revision}; `file_url` that of a file's, also with {path} and
    {line}.
    """

    registry: CollectorRegistry
    secrets_dir: Path
    store: Store
    share: Share
    cycle_age: Callable[[], float]
    not_ready: Callable[[], str]
    poll: Callable[[], None]
    wake: Callable[[], None]
    log_of: Callable[[str], Path]
    http: HttpSettings = field(default_factory=HttpSettings)
    public_url: str = ""
    commit_url: str = ""
    file_url: str = ""


def create_app(deps: Deps) -> Starlette:
    """Return the application, for `Server`. `app.state.close()` ends its streams and threads."""
    view = View(deps.store)
    view.keep()
    shelf = ShareReader(deps.share, deps.log_of, deps.store.leader)
    people = People(deps.http, deps.secrets_dir, deps.public_url)
    streams = Streams(deps.store, view)
    asking = Asking(deps.store, view, deps.wake)
    renderer = Renderer(people, view.now, deps.commit_url, deps.file_url)
    pages = Pages(deps.store, view, shelf, people, asking, streams, renderer)
    health, hooks = _Health(deps, people), Hooks(deps.secrets_dir, deps.poll)
    refusing = Refusing(pages.refusal)
    app = Starlette(
        routes=[
            Route("/metrics", health.metrics),
            Route("/healthz", health.alive),
            Route("/readyz", health.ready),
            Route("/hooks/{source}", hooks.receive, methods=["POST"]),
            *Handlers(deps.store, view, shelf, people, asking).routes(),
            *pages.routes(),
        ],
        middleware=[Middleware(Guarded)],
        exception_handlers={
            HTTPException: refusing.http,
            GroundcrewError: refusing.ours,
            Exception: refusing.bug,
        },
    )

    def close() -> None:
        streams.close()
        view.close()
        shelf.close()

    app.state.close = close
    app.state.is_proxy = people.is_proxy
    app.state.streams = streams
    return app


class Guarded:
    """Middleware that adds headers which tell a browser to load and run nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add headers that the response does not have itself."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, guarded)


class _Health:
    """Endpoints for scrapers and process supervisors, served even if other requests wait."""

    def __init__(self, deps: Deps, people: People) -> None:
        self._deps = deps
        self._people = people
        self._scraping = anyio.CapacityLimiter(SCRAPES)

    async def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))

        def scrape() -> bytes:
            if self._deps.http.metrics == "read":
                self._people.reader(request)
            return encode(self._deps.registry)

        # Not in the threads in which pages may wait.
        text = await anyio.to_thread.run_sync(scrape, limiter=self._scraping)
        return Response(text, headers={"content-type": content_type})

    async def alive(self, request: Request) -> Response:
        del request
        age = self._deps.cycle_age()
        if age > CYCLE_LIMIT:
            return PlainTextResponse(f"the last cycle ended {age:.0f} s ago\n", status_code=503)
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        del request
        why = self._deps.not_ready()
        return PlainTextResponse(f"{why}\n" if why else "ok\n", status_code=503 if why else 200)
