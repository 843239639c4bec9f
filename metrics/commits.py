"""Commit statuses on GitHub or GitLab that show the outcome of a commit.

Each environment and each of its instances has its own status on the commit that requested it:
`groundcrew/<environment>` and `groundcrew/<environment>/<instance>`. The status `groundcrew` says
whether the revision was accepted. The clients are PyGithub and python-gitlab (the extra `forges`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from metrics.channels import (
    TAKEN,
    TIMEOUT,
    Outcome,
    Response,
    fingerprint,
    judge,
    unanswered,
)
from metrics.facts import Links, cut, plain, withdraws
from reconciler.core.events import (
    ActivationRef,
    Authorship,
    BuildFailed,
    Event,
    EventKind,
    UnknownKind,
    part_of,
)
from reconciler.core.phases import Trigger
from reconciler.secrets import read

if TYPE_CHECKING:
    from reconciler.settings import StatusSettings

DESCRIPTION = 140  # GitHub's limit; GitLab's is 255
NO_LINKS = Links()
SHA = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")
INSTALL = {
    "github": "pip install 'pygithub>=2.8,<3'",
    "gitlab": "pip install 'python-gitlab>=8,<9'",
}
PUBLIC = {"github": "https://api.github.com", "gitlab": "https://gitlab.com"}


class State(StrEnum):
    """State of a commit status, as GitHub names it."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


GITLAB_STATE: Mapping[State, str] = {
    State.PENDING: "running",
    State.SUCCESS: "success",
    State.FAILURE: "failed",
}

STATES: Mapping[EventKind, tuple[State, str]] = {
    EventKind.SOURCE_CHANGED: (State.SUCCESS, "the definitions are read"),
    EventKind.PRUNE_HELD: (State.FAILURE, "held: it removes most definitions"),
    EventKind.OBJECT_STALLED: (State.FAILURE, ""),
    EventKind.BUILD_QUEUED: (State.PENDING, "building"),
    EventKind.BUILD_READY: (State.SUCCESS, "built and verified"),
    EventKind.BUILD_FAILED: (State.FAILURE, ""),
    EventKind.ACTIVATION_STARTED: (State.PENDING, "activating"),
    EventKind.ACTIVATION_ACTIVE: (State.SUCCESS, "active"),
    EventKind.ACTIVATION_ABORTED: (State.PENDING, "given up for now: "),
    EventKind.ROLLED_BACK: (State.FAILURE, "rolled back: "),
    EventKind.DEGRADED: (State.FAILURE, "degraded: "),
}
"""State of the commit and its description after an event; other kinds leave it as it is."""


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """Status of a commit; a later one with the same `context` replaces it."""

    sha: str
    context: str
    state: State
    description: str
    url: str = ""


def status_of(
    event: Event,
    context: str,
    links: Links = NO_LINKS,
    clean: Callable[[str], str] = lambda text: text,
) -> CommitStatus | None:
    """Return the commit status for an event, if it has one; `clean` removes secrets from texts."""
    entry = None if isinstance(event.kind, UnknownKind) else STATES.get(event.kind)
    if entry is None or not SHA.match(event.revision):
        return None
    ref = part_of(event.payload, ActivationRef)
    if ref is not None and ref.trigger is not Trigger.COMMIT:
        return None  # an operator's rollback says nothing about the commit
    if withdraws(event):
        return None
    state, message = entry
    kind, _, name = event.object.partition("/")
    if event.kind is EventKind.BUILD_READY:
        message = f"{message}: {event.message}"
    elif not message or message.endswith(": "):
        location = event.payload.location if isinstance(event.payload, BuildFailed) else ""
        message += f"{location}: {event.message}" if location else event.message
    parts = [context]
    if kind == "instance":
        authorship = part_of(event.payload, Authorship) or Authorship()
        parts.append(authorship.environment or "")
    if kind in ("environment", "instance"):
        parts.append(name)
    elif event.kind is EventKind.OBJECT_STALLED:
        parts.append(event.object)
    description = cut(plain(clean(" ".join(message.split()))), DESCRIPTION)
    return CommitStatus(
        event.revision,
        cut("/".join(p for p in parts if p), 255),
        state,
        description,
        links.page(event),
    )


class Forge:
    """Client that sends commit statuses to the project that holds the environments repo."""

    def __init__(self, settings: StatusSettings, secrets_dir: Path, git_url: str) -> None:
        self._kind = settings.forge
        self._api = settings.api_url or PUBLIC.get(settings.forge, "")
        self._project = settings.project or project_of(git_url)
        self._token = secrets_dir / settings.secret / "token"

    def target(self) -> str:
        """Return a digest of the token, or "" if there is no token or statuses are disabled."""
        return fingerprint(read(self._token)) if self._kind else ""

    def send(self, status: CommitStatus) -> Response:
        """Set one commit status."""
        token = read(self._token)
        if not token.isascii():
            return Response(Outcome.REFUSED, "the secret's file `token` does not hold a token")
        try:
            if self._kind == "github":
                answer = self._github(token, status)
            else:
                answer = self._gitlab(token, status)
        except ImportError:
            return Response(Outcome.REFUSED, f"the extra is missing: {INSTALL[self._kind]}")
        except Exception as error:  # requests and urllib3 raise many types
            return unanswered(error)
        if not token:
            return answer
        return Response(answer.outcome, answer.words.replace(token, "***"), answer.after)

    def _github(self, token: str, status: CommitStatus) -> Response:
        from github import GithubException

        from reconciler import forge_clients

        client = forge_clients.github(token, self._api, TIMEOUT, lazy=True)
        try:
            commit = client.get_repo(self._project).get_commit(status.sha)
            commit.create_status(
                state=str(status.state),
                description=status.description,
                context=status.context,
                **({"target_url": status.url} if status.url else {}),
            )
        except GithubException as error:
            return _github_answer(error.status, str(error.message or ""), error.headers or {})
        finally:
            client.close()
        return TAKEN

    def _gitlab(self, token: str, status: CommitStatus) -> Response:
        from gitlab.exceptions import GitlabError

        from reconciler import forge_clients

        data = {
            "state": GITLAB_STATE[status.state],
            "name": status.context,
            "description": status.description,
            **({"target_url": status.url} if status.url else {}),
        }
        try:
            with forge_clients.gitlab(token, self._api, TIMEOUT) as client:
                project = client.projects.get(self._project, lazy=True)
                project.commits.get(status.sha, lazy=True).statuses.create(
                    data, obey_rate_limit=False
                )
        except GitlabError as error:
            code, message = int(error.response_code or 0), str(error.error_message)
            if code == 400 and "cannot transition" in message.lower():
                return TAKEN  # it has this state already
            return (
                judge(code, message, time.time()) if code else Response(Outcome.LATER, "no answer")
            )
        return TAKEN


def _github_answer(code: int, words: str, headers: Mapping[str, str]) -> Response:
    """Return the answer for a GitHub error. GitHub reports rate limits as 403 too, with headers."""
    lower = {key.lower(): value for key, value in headers.items()}
    after = lower.get("retry-after", "")
    limited = after or lower.get("x-ratelimit-remaining") == "0" or "rate limit" in words.lower()
    return judge(429 if code == 403 and limited else code, words, time.time(), after)


# ------------------------------------------------------------------------------------- addresses


def web_of(git_url: str) -> tuple[str, str]:
    """Return (host, path without .git) of an https or ssh git URL, or ("", "") for any other."""
    match = re.match(r"^[\w.-]+@([\w.-]+):(?!/)(.+)$", git_url)
    if match:
        host, path = match[1], match[2]
    else:
        parts = urlsplit(git_url)
        if parts.scheme not in ("https", "ssh", "git+ssh") or not parts.hostname:
            return "", ""
        host, path = parts.hostname, parts.path
    return host, path.strip("/").removesuffix(".git")


def project_of(git_url: str) -> str:
    """Return the project's path: owner/name."""
    return web_of(git_url)[1]


def commit_url_of(git_url: str, forge: str = "") -> str:
    """Return the URL of a commit's page, with {revision}, or "" if the forge is unknown."""
    host, path = web_of(git_url)
    if not host or not path:
        return ""
    page = f"https://{host}/{quote(path)}"
    if forge == "gitlab" or "gitlab" in host:
        return f"{page}/-/commit/{{revision}}"
    if forge == "github" or "github" in host:
        return f"{page}/commit/{{revision}}"
    return ""


def file_url_of(git_url: str, forge: str = "") -> str:
    """Return the URL of a file's page, with {revision}, {path} and {line}, or "" if unknown."""
    project, commit, _ = commit_url_of(git_url, forge).partition("/commit/{revision}")
    return f"{project}/blob/{{revision}}/{{path}}#L{{line}}" if commit else ""
