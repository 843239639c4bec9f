"""Pages about builds, which read the share beside the records."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from reconciler.api.auth import Person
from reconciler.api.build_lookup import LOCK, SBOM, document_response, requested_build
from reconciler.api.pages import stages, view_models
from reconciler.api.pages.comparison import compare
from reconciler.api.pages.parameters import page_number
from reconciler.api.pages.render import Renderer
from reconciler.api.search import users
from reconciler.api.share_reader import Contents, Part, ShareReader, last_lines
from reconciler.api.view import Shown, View
from reconciler.core.builds import OPEN
from reconciler.core.errors import GroundcrewError
from reconciler.core.model import BuildRecord
from reconciler.share.file_list import Absent

FILES = 500  # per table
LOG_SHOWN = 1 << 16  # bytes of a log on a page


@dataclass(frozen=True, slots=True)
class Side:
    """One of two builds that are compared: what was asked for, and its documents.

    `name` is an instance's name, or "" if a build was asked for; `build` is None for the bare base.
    """

    given: str
    name: str
    build: BuildRecord | None
    contents: Contents


class BuildPages:
    """Pages about builds; every one of them may have to wait for the share."""

    def __init__(self, view: View, shelf: ShareReader, renderer: Renderer) -> None:
        self._view = view
        self._shelf = shelf
        self._renderer = renderer

    def build(self, request: Request, person: Person) -> Response:
        """Show one build."""
        build = requested_build(self._view, request)
        trouble, contents, log = "", Contents(), None
        try:
            log = self._shelf.log(build, -LOG_SHOWN, LOG_SHOWN)
            contents = self._shelf.contents(build)
        except GroundcrewError as error:
            trouble = str(error)
        text, cut = last_lines(log or Part(0, b"", 0))
        shown = self._view.now()
        earlier = view_models.before(shown, build)
        return self._renderer.page(
            request,
            person,
            "build.html",
            build=build,
            contents=contents,
            trouble=trouble,
            log=text,
            log_end=log.end if log else 0,
            log_cut=cut,
            has_log=log is not None,
            no_log="" if log is not None else self._shelf.no_log(build),
            ended=build.phase not in OPEN,
            stages=stages.of_build(build, time.time()),
            before=earlier,
            comparison=compare(earlier, build),
            users=users(build, shown),
            alive=build.environment in shown.environments,
        )

    def log(self, request: Request, person: Person) -> Response:
        """Return the whole log."""
        del person
        build = requested_build(self._view, request)
        first = self._shelf.log_begin(build)
        if first is None:
            raise HTTPException(404, self._shelf.no_log(build))
        return StreamingResponse(self._shelf.log_pieces(build, first), media_type="text/plain")

    def lock(self, request: Request, person: Person) -> Response:
        """Return the lock."""
        del person
        build = requested_build(self._view, request)
        return document_response(self._shelf, build, LOCK, "text/plain")

    def sbom(self, request: Request, person: Person) -> Response:
        """Return the SBOM."""
        del person
        build = requested_build(self._view, request)
        return document_response(self._shelf, build, SBOM, "application/json")

    def files(self, request: Request, person: Person) -> Response:
        """Show the files of a build's package, or the definition's own files."""
        build, package = requested_build(self._view, request), request.query_params.get("package")
        begin = (page_number(request) - 1) * FILES
        try:
            listed = self._shelf.files(build, package, begin, FILES)
        except Absent as error:
            raise HTTPException(404, f"There are no files to show: {error}.") from error
        return self._renderer.page(
            request,
            person,
            "files.html",
            build=build,
            package=package,
            listed=listed,
            begin=begin,
            turned=view_models.files(package, begin // FILES + 1, listed.total, FILES),
        )

    def compare(self, request: Request, person: Person) -> Response:
        """Show the differences between two builds, or between the builds of two instances."""
        shown, given = self._view.now(), request.query_params
        names = given.get("old", "")[:80].strip(), given.get("new", "")[:80].strip()
        trouble, old, new, comparison = "", None, None, None
        if all(names):
            try:
                old, new = (self._side(shown, name) for name in names)
                comparison = compare(old.build, new.build)
            except GroundcrewError as error:
                trouble = str(error)
        return self._renderer.page(
            request,
            person,
            "compare.html",
            status=503 if trouble else 200,
            names=names,
            trouble=trouble,
            old=old,
            new=new,
            comparison=comparison,
            known=sorted(shown.instances),
        )

    def _side(self, shown: Shown, given: str) -> Side:
        """Return the build of this key, of this id, or of this instance. Raises HTTPException."""
        name = given.removeprefix("instance/")
        instance = shown.records.instances.get(name)
        wanted = given if instance is None else instance.current.build
        if instance is not None and wanted is None:
            return Side(given, name, None, Contents())
        build = shown.builds.get(wanted or "")
        if build is None:
            raise HTTPException(404, f"There is no build and no instance {given[:64]}.")
        return Side(given, name if instance is not None else "", build, self._shelf.contents(build))
