"""Look-up of a build and of its documents, the same for the API and the pages."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from reconciler.api.share_reader import ShareReader
from reconciler.api.view import View
from reconciler.core.model import BuildRecord

LOCK = "pylock.toml"
SBOM = "sbom.cdx.json"


def requested_build(view: View, request: Request) -> BuildRecord:
    """Return the build whose key or id is in the path. Raises HTTPException."""
    key = request.path_params["key"]
    build = view.now().builds.get(key)
    if build is None:
        raise HTTPException(
            404, f"There is no build {key[:64]}; `groundcrew status` shows the builds in use."
        )
    return build


def document_response(
    shelf: ShareReader, build: BuildRecord, name: str, media_type: str
) -> Response:
    """Respond with one of a build's documents. Raises HTTPException or Retryable."""
    data = shelf.document(build, name)
    if data is None:
        raise HTTPException(404, f"Build {build.key} is {build.phase} and has no {name}.")
    return Response(data, media_type=media_type)
