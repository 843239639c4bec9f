"""Webhooks of GitHub and GitLab: a valid one makes the daemon poll the repo at once.

The content of a hook is never used, only its arrival: the daemon reads the repo itself. So a
replayed hook does no more harm than a poll.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from reconciler.core.reasons import Reason
from reconciler.secrets import read

log = logging.getLogger(__name__)

BODY_LIMIT = 25 << 20  # bytes; GitHub sends no larger ones. Nothing of it is kept in memory
BODY_TIME = 10.0  # seconds in which the whole body has to arrive


class Hooks:
    """Handler of `POST /hooks/{source}`; a source without a secret file does not exist."""

    def __init__(self, secrets_dir: Path, wake: Callable[[], None]) -> None:
        self._dir = secrets_dir / "hooks"
        self._wake = wake

    async def receive(self, request: Request) -> Response:
        """Verify the sender and wake the daemon."""
        source = request.path_params["source"]
        secret = self._secret(source)
        if secret is None:
            return _answer(404, Reason.HOOK_UNKNOWN, f"no hook for {source}: it has no secret file")
        check = _GitHub(secret, request) if source == "github" else _GitLab(secret, request)
        try:
            async with asyncio.timeout(BODY_TIME):
                whole = await _drain(request, check)
        except TimeoutError:
            return _answer(408, Reason.HOOK_TOO_SLOW, "the body did not come in time")
        except ClientDisconnect:
            return _answer(400, Reason.HOOK_INCOMPLETE, "the connection ended before the body did")
        if not whole:
            return _answer(413, Reason.HOOK_TOO_LARGE, f"a hook may have {BODY_LIMIT} bytes")
        if not check.good():
            log.warning("a %s hook with a wrong or missing signature was refused", source)
            return _answer(
                401, Reason.HOOK_DENIED, f"the {check.header} header does not fit the secret"
            )
        self._wake()
        return JSONResponse({"accepted": True}, status_code=202)

    def _secret(self, source: str) -> bytes | None:
        if source not in ("github", "gitlab"):
            return None
        return read(self._dir / source).encode() or None


class _GitHub:
    """HMAC-SHA-256 of the body, updated while the body arrives."""

    header = "X-Hub-Signature-256"

    def __init__(self, secret: bytes, request: Request) -> None:
        self._mac = hmac.new(secret, digestmod=hashlib.sha256)
        self._given = request.headers.get(self.header, "")

    def feed(self, chunk: bytes) -> None:
        self._mac.update(chunk)

    def good(self) -> bool:
        wanted = f"sha256={self._mac.hexdigest()}"
        return hmac.compare_digest(wanted.encode(), self._given.encode())


class _GitLab:
    """Secret sent as it is in a header."""

    header = "X-Gitlab-Token"

    def __init__(self, secret: bytes, request: Request) -> None:
        self._secret = secret
        self._given = request.headers.get(self.header, "")

    def feed(self, chunk: bytes) -> None:
        del chunk

    def good(self) -> bool:
        return hmac.compare_digest(self._secret, self._given.encode())


async def _drain(request: Request, check: _GitHub | _GitLab) -> bool:
    """Feed the body to the check; return False if it is too large."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_LIMIT:
            return False
        check.feed(chunk)
    return True


def _answer(status: int, reason: Reason, message: str) -> Response:
    return JSONResponse({"reason": reason, "message": message}, status_code=status)
