"""Routes of the pages: each reads one snapshot of the records and renders one template."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.api.auth import People, Person
from reconciler.api.build_lookup import requested_build
from reconciler.api.contract import ObjectQuery
from reconciler.api.pages import history, phrases, view_models
from reconciler.api.pages.build_pages import BuildPages
from reconciler.api.pages.forms import Forms, local
from reconciler.api.pages.groups import Group
from reconciler.api.pages.parameters import page_number, whole
from reconciler.api.pages.render import Renderer
from reconciler.api.request_queue import Asking
from reconciler.api.share_reader import Part, ShareReader
from reconciler.api.streams import EventStream, Streams
from reconciler.api.view import View
from reconciler.core.builds import OPEN
from reconciler.core.events import EventKind
from reconciler.core.reasons import Reason
from reconciler.store.store import Store

EVENTS = 100  # per page
RECENT = 60  # on the page of an object
PROBLEMS = 12  # on the page of the fleet
YEAR = "public, max-age=31536000, immutable"

Reading = Callable[[Request, Person], Response]


class Pages:
    """Status pages, and the files that they load."""

    def __init__(
        self,
        store: Store,
        view: View,
        shelf: ShareReader,
        people: People,
        asking: Asking,
        streams: Streams,
        renderer: Renderer,
    ) -> None:
        self._store = store
        self._view = view
        self._shelf = shelf
        self._people = people
        self._streams = streams
        self._renderer = renderer
        self._forms = Forms(people, asking, self._renderer)
        self._builds = BuildPages(view, shelf, self._renderer)

    def routes(self) -> list[Route]:
        """Return all routes."""
        get, shared, forms = self._reading, self._on_the_share, self._forms
        builds = self._builds
        return [
            Route("/", get(self.fleet)),
            Route("/instances/{name}", get(self.instance)),
            Route("/environments", get(self.environments)),
            Route("/environments/{name}", get(self.environment)),
            Route("/builds/{key}", shared(builds.build)),
            Route("/builds/{key}/files", shared(builds.files)),
            Route("/builds/{key}/log", shared(builds.log)),
            Route("/builds/{key}/lock", shared(builds.lock)),
            Route("/builds/{key}/sbom", shared(builds.sbom)),
            Route("/compare", shared(builds.compare)),
            Route("/events", get(self.events)),
            Route("/system", get(self.system)),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/logout", forms.sign_out, methods=["POST"]),
            Route("/act", forms.act, methods=["POST"]),
            Route("/stream", self.stream, methods=["GET"]),
            Route("/stream/builds/{key}", self.log_stream, methods=["GET"]),
            Route("/static/{mark}/{name}", self.static),
        ]

    def _reading(self, show: Reading) -> Callable[[Request], Response]:
        """Return an endpoint that asks users without read access to sign in."""

        def endpoint(request: Request) -> Response:
            try:
                person = self._people.reader(request)
            except HTTPException as refused:
                if refused.status_code != HTTPStatus.UNAUTHORIZED:
                    raise
                return self._ask_to_sign_in(request, refused.detail)
            return show(request, person)

        return endpoint

    def _on_the_share(self, show: Reading) -> Callable[[Request], Awaitable[Response]]:
        """Return the same for pages that may have to wait for the share."""
        reading = self._reading(show)

        async def endpoint(request: Request) -> Response:
            return await self._shelf.apart(reading, request)

        return endpoint

    def _ask_to_sign_in(self, request: Request, why: str) -> Response:
        back = f"{request.url.path}?{request.url.query}".rstrip("?")
        off = why if "there are none" in why else ""
        return self._renderer.page(request, None, "login.html", status=401, back=back, message=off)

    def refusal(self, request: Request, status: int, reason: Reason, message: str) -> Response:
        """Return a refusal as a page."""
        try:
            person = self._people.known(request)
        except HTTPException:  # an invalid token, which may be the reason for the refusal
            person = None
        return self._renderer.page(
            request,
            person,
            "refusal.html",
            status=status,
            title=HTTPStatus(status).phrase,
            reason=reason,
            message=message,
        )

    # ------------------------------------------------------------------------------------ tables

    def fleet(self, request: Request, person: Person) -> Response:
        """Show all instances."""
        shown, given = self._view.now(), _filter(request)
        rows = view_models.fleet(shown, given, page_number(request))
        problems = self._renderer.problems(shown)
        return self._renderer.page(
            request,
            person,
            "fleet.html",
            shown=shown,
            rows=rows,
            tally=view_models.tally(shown.status.instances),
            commits=shown.records.environments,
            problems=problems[:PROBLEMS],
            more=max(0, len(problems) - PROBLEMS),
        )

    def environments(self, request: Request, person: Person) -> Response:
        """Show all environments."""
        shown, given = self._view.now(), _filter(request)
        rows = view_models.environments(shown, given, page_number(request))
        return self._renderer.page(
            request,
            person,
            "environments.html",
            shown=shown,
            rows=rows,
            tally=view_models.tally(shown.status.environments),
            commits=shown.records.environments,
        )

    def events(self, request: Request, person: Person) -> Response:
        """Show the history, newest first."""
        given = request.query_params
        named, kind = given.get("object", "")[:300], given.get("kind", "")[:64]
        before = whole(given.get("before", ""))
        events = self._store.events(
            object=named.replace("\0", "") or None,
            kinds=(kind.replace("\0", ""),) if kind else (),
            before_id=before or None,
            limit=EVENTS + 1,
            newest_first=True,
        )
        return self._renderer.page(
            request,
            person,
            "events.html",
            days=history.days(history.entries(events[:EVENTS])),
            object=named,
            kind=kind,
            before=before,
            kinds=tuple(EventKind),
            older=events[EVENTS - 1].id if len(events) > EVENTS else 0,
        )

    # ----------------------------------------------------------------------------------- objects

    def instance(self, request: Request, person: Person) -> Response:
        """Show one instance."""
        name = request.path_params["name"]
        view = view_models.instance(self._view.now(), name, time.time())
        if view is None:
            raise HTTPException(404, f"There is no instance {name[:64]}.")
        target = f"instance/{name}"
        return self._renderer.page(
            request,
            person,
            "instance.html",
            one=view,
            target=target,
            said=phrases.sentence(view.status),
            **self._around(request, target),
        )

    def environment(self, request: Request, person: Person) -> Response:
        """Show one environment."""
        name = request.path_params["name"]
        shown = self._view.now()
        status, record = shown.environments.get(name), shown.records.environments.get(name)
        if status is None or record is None:
            raise HTTPException(404, f"There is no environment {name[:64]}.")
        target = f"environment/{name}"
        return self._renderer.page(
            request,
            person,
            "environment.html",
            one=status,
            record=record,
            builds=view_models.builds_of(shown, name),
            instances=shown.instances,
            target=target,
            **self._around(request, target),
        )

    def _around(self, request: Request, target: str) -> dict[str, Any]:
        """Return data shared by the pages of objects: the newest events, and waiting requests."""
        events = self._store.events(object=target, limit=RECENT, newest_first=True)
        requests = self._store.requests()
        asked = whole(request.query_params.get("asked", ""))
        done = bool(asked) and all(r.id != asked for r in requests)
        return {
            "entries": history.entries(events),
            "requests": view_models.pending(requests, target),
            "asked": asked if done else None,
        }

    def system(self, request: Request, person: Person) -> Response:
        """Show whether Groundcrew itself is well."""
        shown = self._view.now()
        return self._renderer.page(
            request,
            person,
            "system.html",
            shown=shown,
            leader=self._store.leader(),
            requests=self._store.requests(),
            open_builds=sorted(
                {b.key: b for b in shown.builds.values() if b.phase in OPEN}.values(),
                key=lambda b: b.created_at,
            ),
            running=[i for i in shown.status.instances if i.activation is not None],
        )

    # ------------------------------------------------------------------------------------ others

    async def login(self, request: Request) -> Response:
        """Show the sign-in form, or handle its submission."""
        if request.method == "POST":
            return await self._forms.sign_in(request)
        back = local(request.query_params.get("next", "/"))
        return self._renderer.page(request, None, "login.html", back=back, message="")

    async def stream(self, request: Request) -> Response:
        """Stream a message whenever something has changed."""
        await run_in_threadpool(self._people.reader, request)
        self._streams.room()
        return EventStream(self._streams, self._streams.changes())

    async def log_stream(self, request: Request) -> Response:
        """Stream what is added to a build's log."""
        await run_in_threadpool(self._people.reader, request)
        self._streams.room()
        build = await run_in_threadpool(requested_build, self._view, request)
        last = request.headers.get("last-event-id", request.query_params.get("from", "0"))

        def ended() -> bool:
            now = self._view.now().builds.get(build.key)
            return now is None or now.phase not in OPEN

        async def read(begin: int, most: int) -> Part | None:
            return await self._shelf.apart(self._shelf.log, build, begin, most)

        messages = self._streams.log(read, whole(last), ended)
        return EventStream(self._streams, messages)

    def static(self, request: Request) -> Response:
        """Return a style or script; its URL changes with its content."""
        file = self._renderer.files.get(request.path_params["name"])
        if file is None or request.path_params["mark"] != file[0]:
            raise HTTPException(404, "There is no such file.")
        return Response(file[2], media_type=file[1], headers={"cache-control": YEAR})


def _filter(request: Request) -> view_models.Filter:
    """Return the filters of a table; unknown parameters are ignored."""
    given = {k: v for k in ("team", "sync", "health", "q") if (v := request.query_params.get(k))}
    state = request.query_params.get("state")
    try:
        query = ObjectQuery.model_validate(given)
        return view_models.Filter(query, Group(state) if state else None)
    except ValueError as error:  # pydantic's ValidationError is one
        raise HTTPException(422, "No such filter; choose one on the page.") from error
