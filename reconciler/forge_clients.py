"""Clients of GitHub and GitLab whose answers stay within bounds.

Both libraries use requests, which reads an answer of any size, for any time. Here each answer has
the limits of `http_client`, and is not compressed. Import this module where a forge is asked: the
libraries are an extra.
"""

from __future__ import annotations

import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from reconciler.certificates import named
from reconciler.http_client import WHOLE_TIME

ANSWER_LIMIT = 16 << 20  # bytes
STEP = 64 << 10  # bytes that are read at once


class BoundedAdapter(HTTPAdapter):
    """Transport that reads answers up to their limits, before requests sees them."""

    def send(self, request: requests.PreparedRequest, *rest: Any, **more: Any) -> requests.Response:
        """Send a request; see requests."""
        deadline = time.monotonic() + WHOLE_TIME
        request.headers["Accept-Encoding"] = "identity"
        answer = super().send(request, *rest, **{**more, "stream": True})
        try:
            answer._content = _read(answer, deadline)
        finally:
            answer.close()
        answer._content_consumed = True
        return answer


def _read(answer: requests.Response, deadline: float) -> bytes:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise requests.exceptions.ContentDecodingError(f"{answer.url} compresses what it may not")
    parts, size = [], 0
    while part := answer.raw.read1(STEP):
        parts.append(part)
        size += len(part)
        if size > ANSWER_LIMIT:
            raise requests.exceptions.ContentDecodingError(f"{answer.url} sends too much")
        if time.monotonic() > deadline:
            raise requests.exceptions.ReadTimeout(f"{answer.url} answers too slowly")
    return b"".join(parts)


def github(token: str, api: str, timeout: float, *, lazy: bool = False) -> Any:
    """Return a client of GitHub; close it."""
    from github import Auth, Github
    from github.Requester import (
        HTTPRequestsConnectionClass,
        HTTPSRequestsConnectionClass,
        Requester,
    )

    class Plain(HTTPRequestsConnectionClass):
        def __init__(self, *words: Any, **more: Any) -> None:
            super().__init__(*words, **more)
            self.session.mount("http://", BoundedAdapter())

    class Secure(HTTPSRequestsConnectionClass):
        def __init__(self, *words: Any, **more: Any) -> None:
            super().__init__(*words, **more)
            self.session.mount("https://", BoundedAdapter())

    Requester.injectConnectionClasses(Plain, Secure)
    return Github(
        auth=Auth.Token(token),
        base_url=api,
        timeout=int(timeout),
        retry=None,
        verify=named() or True,
        lazy=lazy,
        seconds_between_requests=0,
        seconds_between_writes=0,
    )


def gitlab(token: str, api: str, timeout: float) -> Any:
    """Return a client of GitLab; it is a context manager."""
    from gitlab import Gitlab

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, BoundedAdapter())
    return Gitlab(
        api,
        private_token=token,
        timeout=timeout,
        retry_transient_errors=False,
        ssl_verify=named() or True,
        session=session,
    )
