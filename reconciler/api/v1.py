"""Handlers of `/api/v1`, one for each of `operations`; see docs/openapi.json."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from reconciler.api import contract, openapi
from reconciler.api.auth import People
from reconciler.api.build_lookup import LOCK, SBOM, document_response, requested_build
from reconciler.api.documents import (
    Document,
    build_document,
    builds_document,
    environment_document,
    event_document,
    files_document,
    instance_document,
    request_document,
    runtimes_document,
    status_document,
)
from reconciler.api.operations import JSON, LOG_OFFSET, OPERATIONS, ROOT, TEXT, TOML, Operation
from reconciler.api.request_queue import Asking
from reconciler.api.search import builds_that, environments_that, events_that, instances_that, users
from reconciler.api.share_reader import ShareReader
from reconciler.api.tokens import Role
from reconciler.api.view import View
from reconciler.core.model import BuildRecord
from reconciler.daemon.open_records import UNCONFINED
from reconciler.share.file_list import Absent
from reconciler.store.store import Store
from reconciler.version import installed_version

BODY_LIMIT = 1 << 16  # bytes of a request's body
PIECE = 1 << 20  # bytes of a log in one response to a request with `offset`
ON_THE_SHARE = ("log", "lock", "sbom", "files")  # operations that may have to wait for the share

Query = TypeVar("Query", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]


class Handlers:
    """Handlers that return the records to readers and accept requests from operators."""

    def __init__(
        self, store: Store, view: View, shelf: ShareReader, people: People, asking: Asking
    ) -> None:
        self._store = store
        self._view = view
        self._shelf = shelf
        self._people = people
        self._asking = asking

    def routes(self) -> list[Route]:
        """Return one route per path, so that a refused method is answered with all allowed ones."""
        by_path: dict[str, dict[str, Endpoint]] = {}
        for one in OPERATIONS:
            by_path.setdefault(f"{ROOT}{one.path}", {})[one.method] = self._endpoint(one)
        return [
            Route(path, _by_method(endpoints), methods=list(endpoints))
            for path, endpoints in by_path.items()
        ]

    def _endpoint(self, one: Operation) -> Endpoint:
        handler = getattr(self, one.name)
        if one.method == "POST":
            return handler  # type: ignore[no-any-return]

        def answer(request: Request) -> Response:
            if one.role is Role.READ:
                self._people.reader(request)
            response: Response = handler(request, _query(one.query, request))
            return response

        async def endpoint(request: Request) -> Response:
            if one.name in ON_THE_SHARE:
                return await self._shelf.apart(answer, request)
            return await run_in_threadpool(answer, request)

        return endpoint

    # --------------------------------------------------------------------------------- reading

    def openapi(self, request: Request, query: contract.NoQuery) -> Response:
        """Return the API's description; needs no token."""
        del request, query
        return JSONResponse(openapi.document())

    def system(self, request: Request, query: contract.NoQuery) -> Response:
        """Return what is known of the server, and who asks."""
        del query
        person = self._people.reader(request)
        local = any(r.definition.local for r in self._view.now().records.instances.values())
        document: Document = {
            "version": installed_version(),
            "leader": self._store.leader(),
            "event": self._store.last_event_id(),
            "unconfined": (local and self._store.named(UNCONFINED)) or "",
            "you": {"name": person.name, "role": str(person.role)},
        }
        return JSONResponse(document)

    def status(self, request: Request, query: contract.StatusQuery) -> Response:
        """Return the status of everything."""
        del request
        shown = self._view.fresh() if query.fresh else self._view.now()
        return JSONResponse(status_document(shown.status))

    def environments(self, request: Request, query: contract.ObjectQuery) -> Response:
        """Return the matching environments."""
        del request
        environments = environments_that(query, self._view.now())
        return JSONResponse([environment_document(e) for e in environments])

    def environment(self, request: Request, query: contract.NoQuery) -> Response:
        """Return one environment."""
        del query
        name = request.path_params["name"]
        environment = self._view.now().environments.get(name)
        if environment is None:
            raise HTTPException(404, f"no environment {name[:64]}")
        return JSONResponse(environment_document(environment))

    def instances(self, request: Request, query: contract.ObjectQuery) -> Response:
        """Return the matching instances."""
        del request
        instances = instances_that(query, self._view.now())
        return JSONResponse([instance_document(i) for i in instances])

    def instance(self, request: Request, query: contract.NoQuery) -> Response:
        """Return one instance."""
        del query
        name = request.path_params["name"]
        instance = self._view.now().instances.get(name)
        if instance is None:
            raise HTTPException(404, f"no instance {name[:64]}")
        return JSONResponse(instance_document(instance))

    def history(self, request: Request, query: contract.HistoryQuery) -> Response:
        """Return events: with `after` those since, oldest first, otherwise the newest first."""
        del request
        return JSONResponse([event_document(e) for e in events_that(query, self._store)])

    def runtimes(self, request: Request, query: contract.NoQuery) -> Response:
        """Return the contents of the instances' bases."""
        del request, query
        return JSONResponse(runtimes_document(self._view.now().records))

    # ---------------------------------------------------------------------------------- builds

    def builds(self, request: Request, query: contract.BuildsQuery) -> Response:
        """Return the matching builds."""
        del request
        records = self._view.now().records
        return JSONResponse(builds_document(builds_that(query, records), records.instances))

    def build(self, request: Request, query: contract.NoQuery) -> Response:
        """Return one build."""
        del query
        build = requested_build(self._view, request)
        document: Document = {
            **build_document(build),
            "instances": [i.name for i in users(build, self._view.now())],
        }
        return JSONResponse(document)

    def log(self, request: Request, query: contract.LogQuery) -> Response:
        """Return a build's log."""
        build = requested_build(self._view, request)
        if query.offset is not None:
            return self._log_since(build, query.offset)
        first = self._shelf.log_begin(build, query.tail)
        if first is None:
            raise HTTPException(404, self._shelf.no_log(build))
        return StreamingResponse(self._shelf.log_pieces(build, first), media_type=TEXT)

    def _log_since(self, build: BuildRecord, offset: int) -> Response:
        """Return a piece of a log, with the byte at which it begins in a header."""
        piece = self._shelf.log(build, offset, PIECE)
        if piece is not None and piece.size < offset:  # a new attempt restarted the log
            piece = self._shelf.log(build, 0, PIECE)
        if piece is None:
            raise HTTPException(404, self._shelf.no_log(build))
        return Response(piece.data, media_type=TEXT, headers={LOG_OFFSET: str(piece.begin)})

    def lock(self, request: Request, query: contract.NoQuery) -> Response:
        """Return a build's lock."""
        del query
        build = requested_build(self._view, request)
        return document_response(self._shelf, build, LOCK, TOML)

    def sbom(self, request: Request, query: contract.NoQuery) -> Response:
        """Return a build's SBOM."""
        del query
        build = requested_build(self._view, request)
        return document_response(self._shelf, build, SBOM, JSON)

    def files(self, request: Request, query: contract.FilesQuery) -> Response:
        """Return files of a build."""
        build = requested_build(self._view, request)
        try:
            listed = self._shelf.files(build, query.package, query.offset, query.limit)
        except Absent as error:
            raise HTTPException(404, str(error)) from error
        return JSONResponse(files_document(query.package, listed))

    # ------------------------------------------------------------------------------- operating

    def requests(self, request: Request, query: contract.NoQuery) -> Response:
        """Return the requests that are waiting."""
        del request, query
        return JSONResponse([request_document(r) for r in self._store.requests()])

    async def ask(self, request: Request) -> Response:
        """Queue a request; it needs a token in the Authorization header."""
        person = await run_in_threadpool(self._people.operator, request, cookie=False)
        _query(contract.NoQuery, request)
        self._people.check_origin(request)
        body = await _body(request)
        asked = await run_in_threadpool(
            self._asking.ask, person, body.verb, body.target, body.options
        )
        return JSONResponse(request_document(asked), status_code=202)


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return endpoint


def _query(model: type[Query], request: Request) -> Query:
    """Return the query as a `model`. Raises HTTPException 422 with the first mistake."""
    given = request.query_params.multi_items()
    twice = [name for n, (name, _) in enumerate(given) if name in dict(given[:n])]
    if twice:
        raise HTTPException(422, f"{twice[0][:64]}: give it once")
    return _parsed(model, dict(given))


async def _body(request: Request) -> contract.Ask:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(422, "send the body as application/json")
    data = b""
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > BODY_LIMIT:
                raise HTTPException(422, f"the body may have {BODY_LIMIT} bytes")
        document = json.loads(data)
    except ClientDisconnect as error:
        raise HTTPException(422, "the connection ended before the body did") from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, "the body is not valid JSON") from error
    return _parsed(contract.Ask, document)


def _parsed(model: type[Query], given: object) -> Query:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise HTTPException(422, f"{where[:64]}: {first['msg']}") from error
