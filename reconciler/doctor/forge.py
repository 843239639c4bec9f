"""Checks of the forge's token: it is valid, can see the project, and has the permissions needed."""

from __future__ import annotations

from collections.abc import Iterator

from metrics.channels import TIMEOUT
from metrics.commits import INSTALL, PUBLIC, project_of
from reconciler.certificates import distrusts
from reconciler.core.reasons import Reason
from reconciler.doctor.findings import Check, Finding, Level, good, off
from reconciler.secrets import read
from reconciler.settings import Settings

DEVELOPER = 30  # GitLab's lowest access level that may set statuses


def look(settings: Settings) -> Iterator[Finding]:
    """Check the token with the forge, without setting a status."""
    wanted = settings.commit_status
    if not wanted.forge:
        yield off(Check.FORGE, "commit_status", "no commit statuses are set")
        return
    project = wanted.project or project_of(settings.git.url)
    about = f"{wanted.forge} {project}".strip()
    path = settings.secrets_dir / wanted.secret / "token"
    token = read(path)
    if not project:
        yield _wrong(
            about,
            Reason.PROJECT_UNKNOWN,
            "the project cannot be told from git.url",
            "set commit_status.project",
        )
        return
    if not token or not token.isascii():
        yield _wrong(
            about,
            Reason.SECRET_MISSING,
            f"there is no token in {path}",
            "write a token that may set commit statuses into that file",
        )
        return
    api = wanted.api_url or PUBLIC[wanted.forge]
    try:
        ask = _github if wanted.forge == "github" else _gitlab
        yield ask(about, api, project, token)
    except ImportError:
        yield _wrong(
            about,
            Reason.EXTRA_MISSING,
            "the client library is not installed",
            INSTALL[wanted.forge],
        )
    except Exception as error:  # of requests and urllib3; the text may contain the token
        if distrusts(error):
            yield _wrong(
                about,
                Reason.CERTIFICATE_WRONG,
                f"the certificate of {api} is not trusted",
                "renew it, or give the daemon its authority (SSL_CERT_FILE)",
            )
            return
        yield Finding(
            Check.FORGE,
            about,
            Level.UNREACHABLE,
            Reason.FORGE_UNREACHABLE,
            f"{api} does not answer ({type(error).__name__})",
            "see that the daemon's network reaches it, and commit_status.api_url",
        )


def _github(about: str, api: str, project: str, token: str) -> Finding:
    from github import GithubException

    from reconciler import forge_clients

    client = forge_clients.github(token, api, TIMEOUT)
    try:
        repository = client.get_repo(project)
        scopes = client.oauth_scopes
        pushes = repository.permissions.push if repository.permissions is not None else True
    except GithubException as error:
        return _refused(about, api, error.status, "repo:status, or commit statuses: write")
    finally:
        client.close()
    if scopes and not {"repo", "repo:status"} & {*scopes}:
        return _wrong(
            about,
            Reason.SCOPE_MISSING,
            f"the token has the scopes {', '.join(scopes)} only",
            "make one with the scope repo:status",
        )
    if not pushes:
        return Finding(
            Check.FORGE,
            about,
            Level.WARNING,
            Reason.MAY_NOT_PUSH,
            "the token's user may not push to the project, which statuses need",
            "give that user the role Write, or the app the right commit statuses: write",
        )
    return good(Check.FORGE, about, "the token is taken and sees the project")


def _gitlab(about: str, api: str, project: str, token: str) -> Finding:
    from gitlab.exceptions import GitlabError

    from reconciler import forge_clients

    try:
        with forge_clients.gitlab(token, api, TIMEOUT) as client:
            gitlab_project = client.projects.get(project)
            rights = gitlab_project.attributes.get("permissions") or {}
    except GitlabError as error:
        return _refused(about, api, int(error.response_code or 0), "the scope api")
    levels = [
        int((rights.get(k) or {}).get("access_level") or 0)
        for k in ("project_access", "group_access")
    ]
    if rights and max(levels) < DEVELOPER:
        return Finding(
            Check.FORGE,
            about,
            Level.WARNING,
            Reason.MAY_NOT_PUSH,
            "the token's user has less than the role Developer in the project",
            "give the token or its user the role Developer",
        )
    return good(Check.FORGE, about, "the token is taken and sees the project")


def _refused(about: str, api: str, code: int, needs: str) -> Finding:
    match code:
        case 401:
            return _wrong(
                about,
                Reason.TOKEN_REFUSED,
                f"{api} does not take the token",
                f"make a new one with {needs}",
            )
        case 403 | 404:
            return _wrong(
                about,
                Reason.PROJECT_HIDDEN,
                f"the token does not see the project ({code})",
                f"mend commit_status.project, or give the token access to it, with {needs}",
            )
        case _:
            return Finding(
                Check.FORGE,
                about,
                Level.UNREACHABLE,
                Reason.FORGE_UNREACHABLE,
                f"{api} answered {code}",
                "look again; see commit_status.api_url",
            )


def _wrong(about: str, reason: Reason, message: str, mend: str) -> Finding:
    return Finding(Check.FORGE, about, Level.WRONG, reason, message, mend)
