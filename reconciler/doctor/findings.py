"""Findings of checks, with severity and advice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.errors import GroundcrewError, Retryable


class Check(StrEnum):
    """Subject of a check, in the order of the output."""

    STATE = "state"
    SHARE = "share"
    GIT = "git"
    DATABASE = "database"
    CLOCK = "clock"
    SANDBOX = "sandbox"
    INDEX = "index"
    KUBERNETES = "kubernetes"
    LOCAL = "local"
    AIRFLOW = "airflow"
    PROCESSES = "processes"
    NOTIFY = "notify"
    FORGE = "forge"


class Level(StrEnum):
    """Severity of a finding; `off` means unused or not checked."""

    OK = "ok"
    OFF = "off"
    WARNING = "warning"
    WRONG = "wrong"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check; `mend` is advice for the user, empty if there is nothing to do.

    `object` is the subject of the check: a path, an address without secrets, `instance/NAME`, ….
    """

    check: Check
    object: str
    level: Level
    reason: str
    message: str
    mend: str = ""


UNREACHABLE = frozenset(
    {
        "AirflowUnreachable", "ClusterBusy", "ClusterUnreachable", "DatabaseUnavailable",
        "ShareUnreachable", "SourceUnreachable",
    }
)  # fmt: skip
"""Reasons that mean that nothing responded."""

MENDS = {
    "AirflowUnreachable": "see that Airflow's API server runs, that spec.api.url is its address, "
    "and that network policies let the daemon through",
    "AirflowUnexpected": "see that spec.api.url is the address of Airflow's API server, with the "
    "path it is served under, and that no login page stands in front of it",
    "AirflowCertificate": "renew the certificate, or name its authority by SSL_CERT_FILE",
    "AirflowDenied": "renew username and password, or the token, of an Airflow user with the role "
    "Op in the team's secret; Airflow 2 also needs airflow.api.auth.backend.basic_auth in "
    "api.auth_backends",
    "BranchMissing": "push the branch, or set git.branch",
    "ClusterBusy": "look again; if it lasts, see what loads the API server",
    "ClusterDenied": "renew the daemon's credentials: its service account, or the kubeconfig",
    "ClusterUnreachable": "see that the API server runs and that the daemon's network reaches it",
    "ContextUnknown": "name a context of the kubeconfig in spec.kubernetes.context, and set "
    "kubernetes.kubeconfig",
    "DatabaseDamaged": "restore a backup, or move it away: an empty one adopts the share",
    "DatabaseUnavailable": "see that it runs and that the setting database is its address",
    "Forbidden": "let the Helm chart make its Roles: list the namespace in airflowNamespaces",
    "NotAllowed": "add it to local.allow, if the platform team agrees",
    "SchemaTooNew": "run the newer Groundcrew, or restore a backup",
    "ShareFull": "free space on the share, or run `groundcrew gc`",
    "ShareUnreachable": "see that the share is mounted and that its server answers",
    "ShareUnwritable": "mount the share read-write for the daemon, owned by the daemon's user",
    "SourceCertificate": "renew the certificate or host key; or name its authority by "
    "SSL_CERT_FILE, or <secrets_dir>/git/known_hosts for ssh",
    "SourceDenied": "renew the token or ssh-privatekey in <secrets_dir>/git/; "
    "it needs to read the repo",
    "SourceEmpty": "push the environments repo; `groundcrew init DIR` writes one to start from",
    "SourceMissing": "set git.url in groundcrew.toml, or GROUNDCREW_GIT__URL",
    "SourceUnknown": "write another address into git.url, or its scheme into git.allow_schemes",
    "SourceUnreachable": "see that git.url is the repo's address and that the daemon's network "
    "reaches it",
}  # fmt: skip
"""Advice for users, by the reason of an error."""


def failed(check: Check, about: str, error: GroundcrewError) -> Finding:
    """Return the finding for an error."""
    far = error.reason in UNREACHABLE
    level = Level.UNREACHABLE if far else Level.WRONG
    mend = MENDS.get(error.reason, "")
    if not mend:
        mend = "look again" if isinstance(error, Retryable) else "see the message"
    return Finding(check, about, level, error.reason, str(error), mend)


def good(check: Check, about: str, message: str) -> Finding:
    """Return a finding that everything is fine."""
    return Finding(check, about, Level.OK, "Good", message)


def off(check: Check, about: str, message: str, mend: str = "") -> Finding:
    """Return a finding that the subject is not in use, or that there is nothing to check."""
    return Finding(check, about, Level.OFF, "NotUsed", message, mend)
