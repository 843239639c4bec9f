"""Restrictions on git: no machine configuration, allowed schemes only, secrets from files.

Secrets are passed in the environment of git's own process, never in arguments, URLs or messages.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.core.addresses import shown
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.secrets import login

SCP_LIKE = re.compile(r"^[\w.-]+@[\w.-]+:.+$")
DISTRUSTED = (
    "certificate verification failed",
    "ssl certificate problem",
    "problem with the ssl ca cert",
    "host key verification failed",
)
DENIED = (
    "authentication failed",
    "could not read username",
    "permission denied",
    "returned error: 401",
    "returned error: 403",
)
OUTSIDE = {
    "GIT_SSL_CAINFO": "SSL_CERT_FILE",
    "GIT_SSL_CAPATH": "SSL_CERT_DIR",
    "https_proxy": "",
    "no_proxy": "",
}
"""Variables of the daemon's environment that git receives, or their general equivalents.

Debian's git has GnuTLS, which does not know SSL_CERT_FILE.
"""
SECRET_FILES = {
    "ssh": "password; ssh takes its key from <secrets_dir>/git/ssh-privatekey",
    "": "user, password or token; write it to <secrets_dir>/git/token, or to username and password "
    "there",
}
"""Parts that a URL may not contain and where they belong, by scheme; "" for any other."""


def scheme_of(url: str) -> str:
    """Return the scheme: https, ssh, file, …; also for git@host:path and plain paths."""
    if url.startswith("/"):
        return "file"
    return "ssh" if SCP_LIKE.match(url) else urlsplit(url).scheme


def _is_address(url: str) -> bool:
    try:
        return not url.startswith("-") and (urlsplit(url).port or 1) > 0
    except ValueError:
        return False


def check_url(url: str, allowed: tuple[str, ...]) -> None:
    """Raise Stalled unless the URL has an allowed scheme and contains no secret."""
    if not url:
        raise Stalled(Reason.SOURCE_MISSING, "no environments repo: set GROUNDCREW_GIT__URL")
    scheme = scheme_of(url) if _is_address(url) else ""
    if not scheme:  # not shown: an invalid host or port may be a password
        raise Stalled(
            Reason.SOURCE_UNKNOWN,
            "git.url is not an address: write https://host/path or git@host:path",
        )
    if scheme not in allowed:
        raise Stalled(
            Reason.SOURCE_UNKNOWN,
            f"the scheme {scheme!r} is not allowed for the environments repo (git.allow_schemes "
            f"has {', '.join(allowed)})",
        )
    if shown(url) != url:
        secret = SECRET_FILES.get(scheme, SECRET_FILES[""])
        raise Stalled(Reason.SOURCE_UNKNOWN, f"git.url {shown(url)} may not contain a {secret}")


HARMLESS = (
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badFilemode",
    "badName",
    "badTagName",
    "badTimezone",
    "gitmodulesBlob",
    "gitmodulesMissing",
    "gitmodulesName",
    "gitmodulesParse",
    "gitmodulesPath",
    "gitmodulesSymlink",
    "gitmodulesUpdate",
    "gitmodulesUrl",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "missingTaggerEntry",
    "multipleAuthors",
    "nulInCommit",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
)
"""Findings of git's checks that are harmless without checking out files or submodules.

History cannot be changed: one commit with such a finding would stop the repository for all teams.
"""


def git_environment(
    url: str, allowed: tuple[str, ...], secrets: Path, home: Path
) -> dict[str, str]:
    """Return the whole environment of a git process."""
    settings = [
        ("core.hooksPath", os.devnull),
        ("transfer.fsckObjects", "true"),
        ("fetch.fsckObjects", "true"),
        *((f"{check}.{name}", "ignore") for check in ("fetch.fsck", "fsck") for name in HARMLESS),
        ("submodule.recurse", "false"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("safe.directory", "*"),
        ("credential.helper", ""),
    ]
    header = _basic(secrets) if scheme_of(url) in ("https", "http") else None
    if header is not None:
        settings.append(("http.extraHeader", f"Authorization: Basic {header}"))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_ALLOW_PROTOCOL": ":".join(allowed),
        "GIT_SSH_COMMAND": ssh_command(secrets),
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    for name, meant in OUTSIDE.items():
        if told := os.environ.get(name) or os.environ.get(meant):
            environment[name] = told
    return environment


def ssh_command(secrets: Path) -> str:
    """Return git's ssh command: only the given key, only known hosts, no prompts."""
    command = ["ssh", "-F", os.devnull, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    command += ["-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20"]
    command += ["-o", f"UserKnownHostsFile={secrets / 'known_hosts'}"]
    if (secrets / "ssh-privatekey").is_file():
        command += ["-i", str(secrets / "ssh-privatekey")]
    return shlex.join(command)


def _basic(secrets: Path) -> str | None:
    credentials = login(secrets)
    if credentials is None:
        return None
    return base64.b64encode(f"{credentials.user or 'git'}:{credentials.password}".encode()).decode()


def translate(url: str, branch: str, message: str) -> GroundcrewError:
    """Return the error for git's message about a remote."""
    url, cause = shown(url), shown(" ".join(message.split())[-500:])
    lower = cause.lower()
    if "fsck error" in lower or "error in object" in lower or "in packed object" in lower:
        return Stalled(
            Reason.SOURCE_UNSAFE,
            f"{url} has an object on branch {branch} that git's checks refuse: {cause}; remove the "
            "commit that brought it from the branch's history (git rebase or git filter-repo) and "
            "push it again",
        )
    if "couldn't find remote ref" in lower or "not our ref" in lower:
        return Retryable(
            Reason.BRANCH_MISSING,
            f"branch {branch} is gone from {url}; push it again or set git.branch",
        )
    if any(mark in lower for mark in DISTRUSTED):
        return Retryable(
            Reason.SOURCE_CERTIFICATE,
            f"{url} shows a certificate or host key that is not trusted; renew it there, or give "
            f"the daemon its authority (SSL_CERT_FILE; known_hosts for ssh) ({cause})",
        )
    if any(mark in lower for mark in DENIED):
        return Retryable(
            Reason.SOURCE_DENIED,
            f"{url} refuses the credentials in <secrets_dir>/git/; renew them ({cause})",
        )
    return Retryable(Reason.SOURCE_UNREACHABLE, f"{url} cannot be read: {cause}")
