"""Permissions to read and operate, and protection against requests from other sites."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.core.model import Verb
from tests.fakes.fleet import name_of
from tests.harness.pages import OPERATOR, READER, Served

TARGET = f"instance/{name_of(0)}"
ASK = {"verb": "suspend", "target": TARGET}
Serve = Callable[..., tuple[Served, httpx.Client]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Yield a function that serves a fleet with the given settings."""
    made: list[tuple[Served, httpx.Client]] = []

    def start(**settings: Any) -> tuple[Served, httpx.Client]:
        served = Served(tmp_path / str(len(made)), 9, **settings)
        client = httpx.Client(base_url=served.start(), timeout=20)
        made.append((served, client))
        return served, client

    yield start
    for served, client in made:
        client.close()
        served.stop()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sign_in(client: httpx.Client, token: str) -> httpx.Response:
    """Sign in like a browser: load the form, send it."""
    return client.post("/login", data={"csrf": secret(client), "token": token, "next": "/events"})


def secret(client: httpx.Client, page: str = "/login") -> str:
    """Return the secret in the forms of a page."""
    match = re.search(r'name="csrf" value="([^"]+)"', client.get(page).text)
    assert match is not None
    return match[1]


# ----------------------------------------------------------------------------------------- the API


def test_with_tokens_nobody_reads_without_one(serve: Serve) -> None:
    """No token, a wrong one, a removed one: 401 from the API, the form on pages."""
    served, client = serve()
    for path in ("/api/v1/status", "/stream"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=bearer("wrong")).status_code == 401
    for path in ("/", "/events", f"/instances/{name_of(0)}"):
        page = client.get(path)
        assert page.status_code == 401
        assert name_of(0) not in page.text.replace(path, "")
    assert client.get("/api/v1/status", headers=bearer(READER)).status_code == 200
    served.write_tokens(operate=OPERATOR)
    assert client.get("/api/v1/status", headers=bearer(READER)).status_code == 401


def test_a_reader_reads_and_an_operator_operates(serve: Serve) -> None:
    """403 with a reason; the operator's request is queued under the operator's name."""
    served, client = serve()
    refused = client.post("/api/v1/requests", json=ASK, headers=bearer(READER))
    assert refused.status_code == 403
    assert "Team reader" in refused.json()["message"]
    assert client.post("/api/v1/requests", json=ASK).status_code == 401
    assert served.store.requests() == []
    done = client.post("/api/v1/requests", json=ASK, headers=bearer(OPERATOR))
    assert done.status_code == 202
    (request,) = served.store.requests()
    assert (request.who, request.verb, request.target) == (
        "On-call engineer (HTTP)",
        Verb.SUSPEND,
        TARGET,
    )
    assert done.json()["id"] == request.id
    assert served.woken == 1


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"verb": "suspend", "target": "instance/none"}, 404),
        ({"verb": "rollback", "target": f"environment/{name_of(0)}"}, 409),
        ({"verb": "rollback", "target": f"instance/{name_of(1)}"}, 409),
        ({"verb": "confirm-prune", "target": ""}, 409),
        ({"verb": "delete", "target": TARGET}, 422),
        ({"verb": "suspend", "target": TARGET, "force": True}, 422),
        ({"verb": "suspend", "target": "../../etc"}, 422),
        ([], 422),
    ],
)
def test_what_makes_no_sense_is_not_queued(asked: object, code: int, serve: Serve) -> None:
    """An unknown object, the wrong kind, no previous build, an unknown verb, extra fields."""
    served, client = serve()
    answer = client.post("/api/v1/requests", json=asked, headers=bearer(OPERATOR))
    assert answer.status_code == code
    assert answer.json()["message"]
    assert served.store.requests() == []


def test_the_cookie_is_not_good_for_the_api(serve: Serve) -> None:
    """A browser sends cookies by itself: another site could make it request a rollback."""
    served, client = serve()
    assert sign_in(client, OPERATOR).status_code == 303
    assert client.post("/api/v1/requests", json=ASK).status_code == 401
    assert served.store.requests() == []


# --------------------------------------------------------------------------------- without tokens


def test_without_tokens_everybody_on_the_machine_reads_and_nobody_operates(serve: Serve) -> None:
    """The default on loopback; no form is offered."""
    served, client = serve(tokens=False)
    page = client.get(f"/instances/{name_of(0)}")
    assert page.status_code == 200
    assert 'action="/act"' not in page.text
    assert client.get("/api/v1/status").status_code == 200
    assert client.post("/api/v1/requests", json=ASK).status_code == 401
    assert served.store.requests() == []


def test_another_name_for_this_machine_opens_nothing(serve: Serve) -> None:
    """A site whose name leads to loopback (DNS rebinding) cannot read anything."""
    _, client = serve(tokens=False)
    assert client.get("/api/v1/status", headers={"Host": "evil.example"}).status_code == 401
    assert client.get("/", headers={"Host": "evil.example:8085"}).status_code == 401
    for odd in ("evil_site.example", "[::", "a b", "127.0.0.1.evil.example", "::1", "é"):
        answer = client.get("/", headers=[(b"Host", odd.encode())])
        assert answer.status_code in (400, 401), odd
    for ours in ("localhost:8085", "127.0.0.1", "[::1]:8085"):
        assert client.get("/", headers={"Host": ours}).status_code == 200


def test_beyond_loopback_reading_needs_a_token_or_the_setting(serve: Serve) -> None:
    """`auto` opens nothing to a network; `anyone` does, `token` closes loopback too."""
    _, closed = serve(tokens=False, host="0.0.0.0")
    assert closed.get("/api/v1/status").status_code == 401
    assert "api/tokens" in closed.get("/").text
    _, opened = serve(tokens=False, host="0.0.0.0", read="anyone")
    assert opened.get("/api/v1/status").status_code == 200
    _, strict = serve(tokens=False, read="token")
    assert strict.get("/api/v1/status").status_code == 401


def test_metrics_name_objects_and_are_read_like_pages(serve: Serve) -> None:
    """No token or a foreign Host: 401 without any metrics; the setting opens only them."""
    _, closed = serve()
    refused = closed.get("/metrics")
    assert refused.status_code == 401
    assert refused.json()["reason"] == "Unauthorized"
    assert closed.get("/metrics", headers=bearer("wrong")).status_code == 401
    assert closed.get("/metrics", headers=bearer(READER)).status_code == 200
    _, local = serve(tokens=False)
    assert local.get("/metrics").status_code == 200
    assert local.get("/metrics", headers={"Host": "evil.example"}).status_code == 401
    _, beyond = serve(tokens=False, host="0.0.0.0")
    assert beyond.get("/metrics").status_code == 401
    _, opened = serve(metrics="anyone")
    assert opened.get("/metrics").status_code == 200
    assert opened.get("/api/v1/status").status_code == 401


# ------------------------------------------------------------------------------------------ forms


def test_signing_in_keeps_the_token_where_no_script_gets_it(serve: Serve) -> None:
    """HttpOnly, SameSite=Lax; a wrong token sets nothing; signing out deletes it."""
    _, client = serve()
    wrong = sign_in(client, "wrong")
    assert wrong.status_code == 401
    assert "groundcrew_session" not in client.cookies
    right = sign_in(client, READER)
    assert (right.status_code, right.headers["location"]) == (303, "/events")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert "Team reader" in client.get("/").text
    client.post("/logout", data={"csrf": secret(client, "/")})
    assert client.get("/").status_code == 401


def test_an_operator_acts_by_form(serve: Serve) -> None:
    """Queued, and back on the object's page, which says that it is waiting."""
    served, client = serve()
    sign_in(client, OPERATOR)
    page = f"/instances/{name_of(0)}"
    answer = client.post(
        "/act", data={"csrf": secret(client, page), "verb": "rollback", "target": TARGET}
    )
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{page}?asked=")
    (request,) = served.store.requests()
    assert (request.who, request.verb) == ("On-call engineer (HTTP)", Verb.ROLLBACK)
    assert f"request {request.id} waits" in client.get(answer.headers["location"]).text


@pytest.mark.parametrize("token", [READER, OPERATOR])
def test_a_forged_form_does_nothing(token: str, serve: Serve) -> None:
    """Without the secret, with another, from another origin, from another site: always 403."""
    served, client = serve()
    sign_in(client, token)
    good = secret(client, "/login")
    form = {"verb": "rollback", "target": TARGET}
    forged: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"csrf": "x" * 43}, {}),
        ({"csrf": good}, {"Origin": "https://evil.example"}),
        ({"csrf": good}, {"Origin": "null"}),
        ({"csrf": good}, {"Origin": "http://["}),
        ({"csrf": good}, {"Origin": f"{client.base_url}".rstrip("/") + ".evil.example"}),
        ({"csrf": good}, {"Sec-Fetch-Site": "cross-site"}),
        ({"csrf": good}, {"Sec-Fetch-Site": "same-site"}),
    ]
    for fields, headers in forged:
        answer = client.post("/act", data={**form, **fields}, headers=headers)
        assert answer.status_code == 403, (fields, headers)
    assert served.store.requests() == []


def test_a_readers_form_is_refused(serve: Serve) -> None:
    """The right form with the wrong role; no form is offered in the first place."""
    served, client = serve()
    sign_in(client, READER)
    assert 'action="/act"' not in client.get(f"/instances/{name_of(0)}").text
    answer = client.post(
        "/act", data={"csrf": secret(client, "/"), "verb": "retry", "target": TARGET}
    )
    assert answer.status_code == 403
    assert served.store.requests() == []


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", ""])
def test_signing_in_leads_to_no_other_site(back: str, serve: Serve) -> None:
    """`next` is one of our paths or ignored."""
    _, client = serve()
    data = {"csrf": secret(client), "token": READER, "next": back}
    assert client.post("/login", data=data).headers["location"] == "/"


# ------------------------------------------------------------------------------------------- proxy


def test_a_users_header_is_believed_from_a_trusted_proxy_only(serve: Serve) -> None:
    """Off by default; from an address that is not listed it is ignored."""
    user = {"X-Forwarded-User": "ada"}
    _, off = serve()
    assert off.get("/api/v1/status", headers=user).status_code == 401
    _, far = serve(user_header="X-Forwarded-User", proxies=("10.0.0.0/8",))
    assert far.get("/api/v1/status", headers=user).status_code == 401
    spoofed = {**user, "X-Forwarded-For": "10.0.0.1"}
    assert far.get("/api/v1/status", headers=spoofed).status_code == 401
    _, near = serve(user_header="X-Forwarded-User")
    assert near.get("/api/v1/status", headers=user).status_code == 200
    assert near.get("/api/v1/status").status_code == 401


def test_users_of_a_proxy_read_and_the_listed_ones_operate(serve: Serve) -> None:
    """They operate by form with its secret; the API accepts no request because of a header."""
    served, client = serve(user_header="X-Forwarded-User", operators=("ada",))
    page = f"/instances/{name_of(0)}"
    for user, code in (("bob", 403), ("ada", 303)):
        client.headers["X-Forwarded-User"] = user
        form = {"verb": "retry", "target": TARGET, "csrf": secret(client, "/login")}
        assert client.post("/act", data=form).status_code == code
        assert ('action="/act"' in client.get(page).text) is (code == 303)
    assert [r.who for r in served.store.requests()] == ["ada (HTTP)"]
    assert client.post("/api/v1/requests", json=ASK).status_code == 401


# ----------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("path", ["/", "/login", "/nope", "/api/v1/status", "/metrics", "/healthz"])
def test_every_answer_tells_the_browser_to_run_nothing_else(path: str, serve: Serve) -> None:
    """A strict content security policy on pages, refusals and documents; nothing inline."""
    _, client = serve()
    answer = client.get(path, headers=bearer(OPERATOR))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.headers["content-type"].startswith("text/html"):
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|javascript:", answer.text)
