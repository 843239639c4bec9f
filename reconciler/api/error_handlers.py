"""Error responses: JSON with `reason` and `message` for programs, a page for people."""

from __future__ import annotations

import logging
from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.core.reasons import Reason

log = logging.getLogger(__name__)

REASONS = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    405: Reason.METHOD_NOT_ALLOWED,
    409: Reason.CONFLICT,
    503: Reason.UNAVAILABLE,
}
FOR_PROGRAMS = ("/api/", "/hooks/", "/metrics", "/healthz", "/readyz", "/stream")


class Page(Protocol):
    """Renderer of a refusal as a page."""

    def __call__(self, request: Request, status: int, reason: Reason, message: str) -> Response:
        """Return the page."""


class Refusing:
    """Exception handlers of the application."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def _answer(self, request: Request, status: int, reason: Reason, message: str) -> Response:
        if request.url.path.startswith(FOR_PROGRAMS):
            return JSONResponse({"reason": reason, "message": message}, status_code=status)
        return self._page(request, status, reason, message)

    def http(self, request: Request, error: Exception) -> Response:
        """Handle a refusal by this application."""
        assert isinstance(error, HTTPException), "registered for nothing else"
        reason = REASONS.get(error.status_code, Reason.BAD_REQUEST)
        message = (
            "There is nothing at this address." if error.detail == "Not Found" else error.detail
        )
        answer = self._answer(request, error.status_code, reason, message)
        answer.headers.update(error.headers or {})
        return answer

    def ours(self, request: Request, error: Exception) -> Response:
        """Handle an unavailable database or share."""
        assert isinstance(error, GroundcrewError), "registered for nothing else"
        log.warning("%s: %s", request.url.path, error)
        answer = self._answer(request, 503, error.reason, str(error))
        if isinstance(error, Retryable):
            answer.headers["retry-after"] = str(round(error.after or 5))
        return answer

    def bug(self, request: Request, error: Exception) -> Response:
        """Handle any other error; the server logs it with its traceback."""
        del error
        message = "a bug in Groundcrew; its log has the details"
        return self._answer(request, 500, Reason.INTERNAL_ERROR, message)
