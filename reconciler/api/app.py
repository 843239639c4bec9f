"""The HTTP application: `/metrics`, `/healthz`, `/readyz`, `/hooks/…` and `/api/v1/…`.

It reads the records through what it is given and changes nothing; only a webhook reaches the
daemon, and all it does is wake it. Every refusal is a JSON object with `reason` and `message`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from reconciler.api.documents import event_document, status_document
from reconciler.api.hooks import Hooks
from reconciler.api.tokens import Role, Tokens, holder
from reconciler.core.errors import GroundcrewError
from reconciler.core.model import Event
from reconciler.core.status import Status

log = logging.getLogger(__name__)

CYCLE_LIMIT = (
    180.0  # seconds without a cycle after which the loop counts as stuck; it sleeps up to 60
)
HISTORY_LIMIT = 1000  # events in one answer
KEY = re.compile(r"^[0-9a-f]{16}$")


class Events(Protocol):
    """Where history is read: `Store.events`."""

    def __call__(
        self,
        *,
        after_id: int = 0,
        object: str | None = None,  # noqa: A002 - the field's name in Event
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Event]:
        """Events, oldest first unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Deps:
    """What the application is given.

    `cycle_age` is how many seconds ago the daemon's last cycle ended; `not_ready` says in words why
    the daemon is not ready yet, "" when it is; `wake` makes it look at the repo at once.
    """

    registry: CollectorRegistry
    secrets_dir: Path
    cycle_age: Callable[[], float]
    not_ready: Callable[[], str]
    wake: Callable[[], None]
    status: Callable[[], Status]
    events: Events
    log_of: Callable[[str], Path]


def create_app(deps: Deps) -> Starlette:
    """The application; serve it with `Server`."""
    health, api = _Health(deps), _Api(deps)
    hooks = Hooks(deps.secrets_dir, deps.wake)
    return Starlette(
        routes=[
            Route("/metrics", health.metrics),
            Route("/healthz", health.alive),
            Route("/readyz", health.ready),
            Route("/hooks/{source}", hooks.receive, methods=["POST"]),
            Route("/api/v1/status", api.status),
            Route("/api/v1/history", api.history),
            Route("/api/v1/builds/{key}/log", api.log),
        ],
        exception_handlers={
            HTTPException: _http_error,
            GroundcrewError: _unavailable,
            Exception: _bug,
        },
    )


class _Health:
    """What a scraper and a process supervisor ask."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._deps.registry), headers={"content-type": content_type})

    def alive(self, request: Request) -> Response:
        del request
        age = self._deps.cycle_age()
        if age > CYCLE_LIMIT:
            return PlainTextResponse(f"the last cycle ended {age:.0f} s ago\n", status_code=503)
        return PlainTextResponse("ok\n")

    def ready(self, request: Request) -> Response:
        del request
        why = self._deps.not_ready()
        return PlainTextResponse(f"{why}\n" if why else "ok\n", status_code=503 if why else 200)


class _Api:
    """The records, for holders of a token."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._tokens = Tokens(deps.secrets_dir / "api" / "tokens")

    def status(self, request: Request) -> Response:
        self._permit(request, Role.READ)
        return JSONResponse(status_document(self._deps.status()))

    def history(self, request: Request) -> Response:
        self._permit(request, Role.READ)
        query = request.query_params
        events = self._deps.events(
            after_id=_whole(query.get("after", "0"), "after", 0, 1 << 62),
            object=query.get("object"),
            limit=_whole(query.get("limit", "100"), "limit", 1, HISTORY_LIMIT),
            newest_first="after" not in query,
        )
        return JSONResponse([event_document(e) for e in events])

    def log(self, request: Request) -> Response:
        self._permit(request, Role.READ)
        key = request.path_params["key"]
        path = self._deps.log_of(key) if KEY.match(key) else None
        if path is None or not path.is_file():
            raise HTTPException(404, f"no log of a build {key[:64]}; give the key of one in status")
        return FileResponse(
            path, media_type="text/plain", headers={"x-content-type-options": "nosniff"}
        )

    def _permit(self, request: Request, role: Role) -> None:
        """Raise HTTPException unless the request carries a token that is good for `role`."""
        tokens = self._tokens.read()
        if tokens is None:
            raise HTTPException(
                404, "the API is off: write `sha256hex role name` lines to <secrets_dir>/api/tokens"
            )
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        token = holder(tokens, presented.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise HTTPException(
                401, "send a known token as `Authorization: Bearer …`",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        if not token.allows(role):
            raise HTTPException(403, f"the token of {token.name} is not good for {role}")


def _whole(text: str, name: str, least: int, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not least <= number <= most:
        raise HTTPException(422, f"{name}: write a number from {least} to {most}")
    return number


REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed"}


def _http_error(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException), "registered for nothing else"
    body = {"reason": REASONS.get(error.status_code, "BadRequest"), "message": error.detail}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def _unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, GroundcrewError), "registered for nothing else"
    log.warning("%s: %s", request.url.path, error)
    return JSONResponse({"reason": error.reason, "message": str(error)}, status_code=503)


def _bug(request: Request, error: Exception) -> Response:
    del request, error  # the server logs it with its traceback
    body = {"reason": "InternalError", "message": "a bug in Groundcrew; its log has the details"}
    return JSONResponse(body, status_code=500)
