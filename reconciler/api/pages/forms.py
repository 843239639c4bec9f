"""Forms of the pages: sign in, sign out, and submit operators' requests.

Every form contains the secret of a cookie, and is refused if a browser reports that another site
sent it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from reconciler.api.auth import CSRF, LONGEST, SESSION, People
from reconciler.api.pages.render import Renderer
from reconciler.api.request_queue import Asking
from reconciler.core.model import Options, Verb

log = logging.getLogger(__name__)

FORM_LIMIT = 8192  # bytes
REASON_LIMIT = 300  # characters of a reason

Handler = Callable[[Request], Awaitable[Response]]


class Forms:
    """Handlers of submitted forms."""

    def __init__(self, people: People, asking: Asking, renderer: Renderer) -> None:
        self._people = people
        self._asking = asking
        self._renderer = renderer

    async def sign_in(self, request: Request) -> Response:
        """Verify a token, and keep it in a cookie."""
        form = await _form(request)
        self._people.check_form(request, form.get("csrf", ""))
        presented = form.get("token", "").strip()[:LONGEST]
        token = await run_in_threadpool(self._people.token, presented)
        back = local(form.get("next", "/"))
        if token is None:
            log.warning("signing in with an unknown token was refused")
            return self._renderer.page(
                request,
                None,
                "login.html",
                status=401,
                back=back,
                message="That token is not known.",
            )
        log.info("%s signed in", token.name)
        answer = RedirectResponse(back, status_code=303)
        self._renderer.set_cookie(request, answer, SESSION, presented)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Delete the cookie with the token."""
        form = await _form(request)
        self._people.check_form(request, form.get("csrf", ""))
        answer = RedirectResponse("/", status_code=303)
        self._renderer.set_cookie(request, answer, SESSION, "")
        self._renderer.set_cookie(request, answer, CSRF, "")
        return answer

    async def act(self, request: Request) -> Response:
        """Queue an operator's request, and redirect to the object's page."""
        form = await _form(request)
        self._people.check_form(request, form.get("csrf", ""))
        person = await run_in_threadpool(self._people.operator, request, cookie=True)
        try:
            verb = Verb(form.get("verb", ""))
        except ValueError as error:
            raise HTTPException(422, "verb: no such request") from error
        target = form.get("target", "")[:LONGEST]
        options = _options(form, time.time())
        asked = await run_in_threadpool(self._asking.ask, person, verb, target, options)
        kind, _, name = target.partition("/")
        page = f"/{kind}s/{quote(name)}" if target else "/"
        return RedirectResponse(f"{page}?asked={asked.id}", status_code=303)


def _options(form: dict[str, str], now: float) -> Options:
    """Return the details of a request, from the fields of its form. Raises HTTPException."""
    hours = form.get("hours", "")
    if hours and not (hours.isascii() and hours.isdigit() and len(hours) < 5):
        raise HTTPException(422, "hours: a number from 1 to 9999")
    until = now + 3600.0 * int(hours) if hours else 0.0
    reason = form.get("reason", "").replace("\0", "").strip()[:REASON_LIMIT]
    return Options(reason=reason, until=until, now=form.get("now") == "yes")


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a URL-encoded form. Raises HTTPException if the body is not one."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(422, "send the form as application/x-www-form-urlencoded")
    data = b""
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > FORM_LIMIT:
                raise HTTPException(422, f"a form may have {FORM_LIMIT} bytes")
    except ClientDisconnect as error:
        raise HTTPException(422, "the connection ended before the form did") from error
    try:
        return dict(parse_qsl(data.decode("ascii", errors="replace"), max_num_fields=20))
    except ValueError as error:
        raise HTTPException(422, "that form has too many fields") from error


def local(path: str) -> str:
    """Return `path` if it is on this server, otherwise the first page."""
    good = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path[:2000] if good and "\\" not in path else "/"
