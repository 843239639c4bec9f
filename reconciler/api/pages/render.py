"""Rendering of templates. All values are escaped; nothing in a template runs in a browser."""

from __future__ import annotations

import hashlib
import time
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from reconciler.api.auth import CSRF, SESSION_SECONDS, People, Person, form_secret
from reconciler.api.pages import phrases
from reconciler.core.addresses import shown
from reconciler.core.dag_checks import dag_words
from reconciler.core.formatting import moment, size, span

STATIC = {"pages.css": "text/css", "pages.js": "text/javascript", "icon.svg": "image/svg+xml"}
HTMX = "htmx-2.0.11.min.js"


class Renderer:
    """Renderer of the pages."""

    def __init__(self, people: People, commit_url: str = "") -> None:
        self._people = people
        self.files = _files()
        self._templates = Environment(
            loader=PackageLoader("reconciler.api.pages"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        filters: dict[str, Any] = {
            "tone": phrases.tone,
            "sign": phrases.sign,
            "span": span,
            "exact": moment,
            "machine": phrases.machine,
            "address": shown,
            "size": size,
            "dags": dag_words,
        }
        self._templates.filters.update(filters)
        self._templates.globals["asset"] = {
            name: f"/static/{mark}/{name}" for name, (mark, _, _) in self.files.items()
        }
        self._templates.globals["htmx"] = HTMX
        good = commit_url.startswith(("https://", "http://"))
        self._templates.globals["commit_url"] = commit_url if good else ""

    def page(
        self,
        request: Request,
        person: Person | None,
        template: str,
        *,
        status: int = 200,
        **shown: object,
    ) -> Response:
        """Return a page for `person`; None is someone who may not read."""
        now = time.time()
        secret = form_secret(request)
        text = self._templates.get_template(template).render(
            person=person,
            csrf=secret,
            now=now,
            ago=lambda at: phrases.ago(at, now),
            path=request.url.path,
            here=f"{request.url.path}?{request.url.query}".rstrip("?"),
            **shown,
        )
        answer = HTMLResponse(text, status_code=status)
        if request.cookies.get(CSRF) != secret:
            self.set_cookie(request, answer, CSRF, secret)
        return answer

    def set_cookie(self, request: Request, answer: Response, name: str, value: str) -> None:
        """Set a cookie that scripts cannot read; "" deletes it.

        Forms and frames of other sites do not send it. Links from them do: otherwise a user who
        follows one would not be recognized, and the new page's form secret would invalidate forms
        in open tabs.
        """
        answer.set_cookie(
            name,
            value,
            max_age=SESSION_SECONDS if value else 0,
            path="/",
            secure=self._people.secure(request),
            httponly=True,
            samesite="lax",
        )


def _files() -> dict[str, tuple[str, str, bytes]]:
    """Return name → (hash of the content, media type, content)."""
    folder = resources.files("reconciler.api.pages") / "static"
    files = {}
    for name, kind in {**STATIC, HTMX: "text/javascript"}.items():
        data = (folder / name).read_bytes()
        files[name] = (hashlib.sha256(data).hexdigest()[:12], kind, data)
    return files
