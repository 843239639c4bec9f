"""Findings of checks, with severity and advice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.core.reasons import Reason


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
    reason: Reason
    message: str
    mend: str = ""


def failed(check: Check, about: str, error: GroundcrewError) -> Finding:
    """Return the finding for an error."""
    level = Level.UNREACHABLE if error.reason.policy.unreachable else Level.WRONG
    mend = error.reason.advice
    if not mend:
        mend = "look again" if isinstance(error, Retryable) else "see the message"
    return Finding(check, about, level, error.reason, str(error), mend)


def good(check: Check, about: str, message: str) -> Finding:
    """Return a finding that everything is fine."""
    return Finding(check, about, Level.OK, Reason.GOOD, message)


def off(check: Check, about: str, message: str, mend: str = "") -> Finding:
    """Return a finding that the subject is not in use, or that there is nothing to check."""
    return Finding(check, about, Level.OFF, Reason.NOT_USED, message, mend)
