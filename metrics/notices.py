"""Kinds of events that people are notified of: severity, title and advice of each.

`facts` makes notifications of events by this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.events import EventKind, UnknownKind
from reconciler.core.phases import Trigger

ROLLBACK = ":leftwards_arrow_with_hook:"


class Severity(StrEnum):
    """Severity of a fact; routes filter by it."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Notice:
    """Notification about a kind of event; `advice` may contain {name} and {object}.

    `emoji` is Slack's. One that `recurs` by itself does not make another fact news again.
    """

    severity: Severity
    title: str
    emoji: str
    advice: str = ""
    recurs: bool = False


NOTICES: Mapping[EventKind, Notice] = {
    EventKind.ACTIVATION_STARTED: Notice(
        Severity.INFO, "activation started", ":arrows_counterclockwise:", recurs=True
    ),
    EventKind.ACTIVATION_ACTIVE: Notice(Severity.INFO, "active", ":white_check_mark:"),
    EventKind.ACTIVATION_ABORTED: Notice(
        Severity.WARNING,
        "activation given up",
        ":warning:",
        "Nothing was switched; the instance keeps its previous build. It is retried automatically.",
        recurs=True,
    ),
    EventKind.BUILD_FAILED: Notice(
        Severity.WARNING,
        "build failed",
        ":x:",
        "Nothing live was touched. Fix it and commit; `groundcrew logs {name}` shows the log.",
    ),
    EventKind.ROLLED_BACK: Notice(
        Severity.WARNING,
        "rolled back",
        ROLLBACK,
        "The instance is back on what it had. The build is not tried again there until the "
        "definition changes or someone runs `groundcrew retry {object}`.",
    ),
    EventKind.DEGRADED: Notice(
        Severity.CRITICAL,
        "DEGRADED",
        ":rotating_light:",
        "The rollback failed too and is retried. Look at that Airflow now; "
        "`groundcrew status` says how it stands.",
    ),
    EventKind.DRIFTED: Notice(
        Severity.WARNING,
        "changed on the share from outside",
        ":warning:",
        "Pointer and loader are written again as they are recorded; a lost build is made again if "
        "the definition still asks for it. Find out who writes to the share.",
    ),
    EventKind.DRIFT_STAYS: Notice(
        Severity.WARNING,
        "a change on the share cannot be repaired",
        ":warning:",
        "It is retried automatically. `groundcrew status` shows the reason.",
    ),
    EventKind.DRIFT_HEALED: Notice(
        Severity.INFO, "the share matches the records again", ":white_check_mark:"
    ),
    EventKind.BUILD_NOT_LOADED: Notice(
        Severity.CRITICAL,
        "not running its build",
        ":rotating_light:",
        "A component runs on the bare base or on another build. It is restarted as soon as that is "
        "allowed; fix what the message says, mostly the share's mount. `groundcrew airflow-values "
        "{name}` prints what connects a release.",
    ),
    EventKind.SHARE_MISSING: Notice(
        Severity.CRITICAL,
        "the share is missing",
        ":rotating_light:",
        "Nothing is built or activated until it is mounted again; what runs goes on.",
    ),
    EventKind.SHARE_BACK: Notice(Severity.INFO, "the share is back", ":white_check_mark:"),
    EventKind.OBJECT_STALLED: Notice(
        Severity.WARNING,
        "stalled",
        ":no_entry:",
        "This object is left as it is until the file is fixed.",
    ),
    EventKind.SOURCE_FAILED: Notice(
        Severity.WARNING,
        "the environments repo cannot be read",
        ":warning:",
        "Everything stays as it is until it can be read again. `groundcrew doctor git` says "
        "what to mend.",
        recurs=True,
    ),
    EventKind.SOURCE_RECOVERED: Notice(
        Severity.INFO, "the environments repo can be read again", ":white_check_mark:"
    ),
    EventKind.PRUNE_HELD: Notice(
        Severity.WARNING,
        "a revision is held",
        ":warning:",
        "Run `groundcrew confirm-prune` if this is meant.",
    ),
}
"""Kinds of events that people are notified of."""

NEWS = frozenset(
    {
        EventKind.ABORT_REQUESTED,
        EventKind.ACTIVATE_REQUESTED,
        EventKind.ENVIRONMENT_ACCEPTED,
        EventKind.PRUNE_CONFIRMED,
        EventKind.REFRESH_REQUESTED,
        EventKind.RESUMED,
        EventKind.RETRY_REQUESTED,
        EventKind.ROLLBACK_REQUESTED,
        EventKind.SOURCE_CHANGED,
    }
)
"""Events after which a fact is reported again even if it was already reported."""

TITLES_BY_TRIGGER: Mapping[tuple[Trigger, EventKind], str] = {
    (Trigger.OPERATOR, EventKind.ACTIVATION_STARTED): "being rolled back by {who}",
    (Trigger.OPERATOR, EventKind.ACTIVATION_ACTIVE): "rolled back by {who}",
    (Trigger.OPERATOR, EventKind.ACTIVATION_ABORTED): "rollback by {who} given up",
    (Trigger.OPERATOR, EventKind.ROLLED_BACK): "rollback by {who} failed",
    (Trigger.OPERATOR, EventKind.DEGRADED): "DEGRADED, in a rollback by {who}",
    (Trigger.DELETION, EventKind.ACTIVATION_STARTED): (
        "returning to the bare base: no environment names it"
    ),
    (Trigger.DELETION, EventKind.ACTIVATION_ACTIVE): (
        "on the bare base, as no environment names it"
    ),
}
"""Titles of activations that no commit requested, by their trigger."""


def notice_of(kind: EventKind | UnknownKind) -> Notice | None:
    """Return the notice for a kind of event, or None if nobody is notified of it."""
    return None if isinstance(kind, UnknownKind) else NOTICES.get(kind)
