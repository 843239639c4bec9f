"""Rendering of templates. All values are escaped; nothing in a template runs in a browser."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from reconciler.api.auth import CSRF, SESSION_SECONDS, People, Person, form_secret
from reconciler.api.pages import phrases
from reconciler.api.pages.attention import Attention, attention
from reconciler.api.pages.forge_links import file_link
from reconciler.api.pages.groups import Group, group_of, label_of, phase_group
from reconciler.api.view import Shown
from reconciler.core.addresses import shown
from reconciler.core.dag_checks import dag_words
from reconciler.core.errors import GroundcrewError
from reconciler.core.formatting import moment, size, span
from reconciler.core.restarts import earlier_words
from reconciler.version import installed_version

STATIC = {"pages.css": "text/css", "pages.js": "text/javascript"}
ICONS = {
    "icon.svg": "#8a96a3",  # of someone who may not read
    f"icon-{Group.FAILED}.svg": "#e5484d",
    f"icon-{Group.OUT_OF_SYNC}.svg": "#f2a900",
    f"icon-{Group.PROGRESSING}.svg": "#3b9eff",
    f"icon-{Group.HEALTHY}.svg": "#30a46c",
}
"""The mark in each state of the fleet, by the colour of its wands."""
LIT = "#ffb224"  # that colour in the file

HTMX = "htmx-2.0.11.min.js"


@dataclass(frozen=True, slots=True)
class Badge:
    """The state of the fleet in a browser's tab: the icon's name, and the number of problems."""

    icon: str = "icon.svg"
    problems: int = 0


@dataclass(frozen=True, slots=True)
class _Watch:
    """Problems of a snapshot, and the badge that follows from them."""

    snapshot: Shown
    problems: list[Attention]
    badge: Badge


class Renderer:
    """Renderer of the pages."""

    def __init__(
        self,
        people: People,
        snapshot: Callable[[], Shown],
        commit_url: str = "",
        file_url: str = "",
    ) -> None:
        self._people = people
        self._snapshot = snapshot
        self._version = installed_version()
        self._known: _Watch | None = None
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
            "group": group_of,
            "phase_group": phase_group,
            "label": label_of,
            "reason": phrases.reason,
            "runtime": phrases.runtime,
            "short": phrases.short,
            "since": phrases.since,
            "span": span,
            "exact": moment,
            "machine": phrases.machine,
            "address": shown,
            "size": size,
            "dags": dag_words,
            "earlier": lambda rows: earlier_words(dict(rows)),
        }
        self._templates.filters.update(filters)
        self._templates.globals["asset"] = {
            name: f"/static/{mark}/{name}" for name, (mark, _, _) in self.files.items()
        }
        self._templates.globals["htmx"] = HTMX
        good = commit_url.startswith(("https://", "http://"))
        self._templates.globals["commit_url"] = commit_url if good else ""
        self._templates.globals["file_link"] = partial(file_link, file_url)

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
        badge = self._badge() if person is not None else Badge()
        text = self._templates.get_template(template).render(
            person=person,
            badge=badge,
            csrf=secret,
            now=now,
            ago=lambda at: phrases.ago(at, now),
            version=self._version,
            path=request.url.path,
            here=f"{request.url.path}?{request.url.query}".rstrip("?"),
            **shown,
        )
        answer = HTMLResponse(text, status_code=status)
        if request.cookies.get(CSRF) != secret:
            self.set_cookie(request, answer, CSRF, secret)
        return answer

    def problems(self, snapshot: Shown) -> list[Attention]:
        """Return the problems in a snapshot."""
        return self._watch(snapshot).problems

    def _badge(self) -> Badge:
        """Return the state of the whole fleet."""
        try:
            return self._watch(self._snapshot()).badge
        except GroundcrewError:  # the page itself says why
            return Badge()

    def _watch(self, snapshot: Shown) -> _Watch:
        """Return what needs attention in a snapshot, which is worked out once for each."""
        known = self._known
        if known is None or known.snapshot is not snapshot:
            problems = attention(snapshot)
            self._known = known = _Watch(snapshot, problems, _badge(snapshot, problems))
        return known

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


def _badge(snapshot: Shown, problems: Sequence[Attention]) -> Badge:
    """Return the worst group of a fleet as an icon; what is suspended counts as healthy."""
    groups = {group_of(i.state) for i in snapshot.status.instances} - {Group.SUSPENDED}
    groups |= {problem.group for problem in problems}
    worst = next((group for group in Group if group in groups), Group.HEALTHY)
    return Badge(f"icon-{worst}.svg", len(problems))


def _files() -> dict[str, tuple[str, str, bytes]]:
    """Return name → (hash of the content, media type, content)."""
    folder = resources.files("reconciler.api.pages") / "static"
    contents = {n: (folder / n).read_bytes() for n in (*STATIC, HTMX)}
    icon = (folder / "icon.svg").read_text()
    contents |= {name: icon.replace(LIT, colour).encode() for name, colour in ICONS.items()}
    kinds = {**STATIC, HTMX: "text/javascript", **dict.fromkeys(ICONS, "image/svg+xml")}
    return {
        name: (hashlib.sha256(data).hexdigest()[:12], kinds[name], data)
        for name, data in contents.items()
    }
