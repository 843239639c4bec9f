"""Facts: notifications for people, made from events and worded for every channel.

A fact is complete in itself: what changed, for which team, by which commit and author, how long it
took, and what to do if it failed. Channels (Slack, webhooks) only format it. Nothing here performs
I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import quote

from reconciler.core.addresses import shown
from reconciler.core.model import Event
from reconciler.core.reasons import Reason

MESSAGE = 3000  # characters kept of a message
LINE = 300  # characters kept of a log line
PACKAGES = 500  # entries kept of each list
NAME = 63  # characters of an object's name
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


class Severity(StrEnum):
    """Severity of a fact; routes filter by it."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Kind:
    """Severity, title and advice of a kind of event; `advice` may contain {name} and {object}."""

    severity: Severity
    words: str
    advice: str = ""


KINDS: Mapping[str, Kind] = {
    "ActivationStarted": Kind(Severity.INFO, "activation started"),
    "ActivationActive": Kind(Severity.INFO, "active"),
    "ActivationAborted": Kind(
        Severity.WARNING,
        "activation given up",
        "Nothing was switched; the instance keeps its previous build. It is retried automatically.",
    ),
    "BuildFailed": Kind(
        Severity.WARNING,
        "build failed",
        "Nothing live was touched. Fix it and commit; `groundcrew logs {name}` shows the log.",
    ),
    "RolledBack": Kind(
        Severity.WARNING,
        "rolled back",
        "The instance is back on what it had. The build is not tried again there until the "
        "definition changes or someone runs `groundcrew retry {object}`.",
    ),
    "Degraded": Kind(
        Severity.CRITICAL,
        "DEGRADED",
        "Going back failed too, and is tried again. Look at that Airflow now; "
        "`groundcrew status` says how it stands.",
    ),
    "Drifted": Kind(
        Severity.WARNING,
        "changed on the share from outside",
        "Pointer and loader are written again as they are recorded; a lost build is made again if "
        "the definition still asks for it. Find out who writes to the share.",
    ),
    "DriftStays": Kind(
        Severity.WARNING,
        "a change on the share cannot be repaired",
        "It is retried automatically. `groundcrew status` shows the reason.",
    ),
    "DriftHealed": Kind(Severity.INFO, "the share matches the records again"),
    "BuildNotLoaded": Kind(
        Severity.CRITICAL,
        "not running its build",
        "A component runs on the bare base or on another build. It is restarted as soon as that is "
        "allowed; fix what the message says, mostly the share's mount. `groundcrew airflow-values "
        "{name}` prints what connects a release.",
    ),
    "ShareMissing": Kind(
        Severity.CRITICAL,
        "the share is missing",
        "Nothing is built or activated until it is mounted again; what runs goes on.",
    ),
    "ShareBack": Kind(Severity.INFO, "the share is back"),
    "ObjectStalled": Kind(
        Severity.WARNING, "stalled", "This object is left as it is until the file is fixed."
    ),
    "SourceFailed": Kind(
        Severity.WARNING,
        "the environments repo cannot be read",
        "Everything stays as it is until it can be read again. `groundcrew doctor git` says "
        "what to mend.",
    ),
    "SourceRecovered": Kind(Severity.INFO, "the environments repo can be read again"),
    "PruneHeld": Kind(
        Severity.WARNING, "a revision is held", "Run `groundcrew confirm-prune` if this is meant."
    ),
}

NEWS = frozenset(
    {
        "EnvironmentAccepted",
        "PruneConfirmed",
        "RefreshRequested",
        "Resumed",
        "RetryRequested",
        "RollbackRequested",
        "SourceChanged",
    }
)
"""Events after which a fact is reported again even if it was already reported."""

OTHERS: Mapping[tuple[str, str], str] = {
    ("operator", "ActivationStarted"): "being rolled back by {who}",
    ("operator", "ActivationActive"): "rolled back by {who}",
    ("operator", "ActivationAborted"): "rollback by {who} given up",
    ("operator", "RolledBack"): "rollback by {who} failed",
    ("operator", "Degraded"): "DEGRADED, in a rollback by {who}",
    ("deletion", "ActivationStarted"): "returning to the bare base: no environment names it",
    ("deletion", "ActivationActive"): "on the bare base, as no environment names it",
}
"""Titles of activations that no commit requested, by their trigger."""

REPEATABLE = frozenset({"ActivationStarted", "ActivationAborted", "SourceFailed"})
"""Kinds that recur by themselves: they do not make another fact news again."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Notification about one event. Texts are plain and bounded; `seconds`, `phases` are durations.

    `grown` lists the ways in which imports cost more than with the previous build. `object` is
    "environment/…", "instance/…", or the repo; `name` is its short name. `at` is in seconds since
    the epoch. `commit_url` and `url` (Groundcrew's page) are "" if unknown.
    """

    id: int  # of the event
    at: float
    kind: str
    severity: str
    title: str
    object: str
    name: str
    team: str
    reason: str = ""
    message: str = ""
    place: str = ""
    advice: str = ""
    revision: str = ""
    author: str = ""
    subject: str = ""
    commit_url: str = ""
    url: str = ""
    environment: str = ""
    build: str = ""
    previous_build: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    grown: tuple[str, ...] = ()
    seconds: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    log: tuple[str, ...] = ()
    activation: int = 0  # id of the event that started it; 0 if there is none
    trigger: str = ""  # of an activation: "commit", "operator", "deletion", "base"
    who: str = ""  # the operator who requested it

    @property
    def words(self) -> str:
        """The title without the object's name."""
        return self.title.removeprefix(f"{self.name}: ")

    @property
    def failed(self) -> bool:
        """True if the fact reports a problem."""
        return self.severity != Severity.INFO


@dataclass(frozen=True, slots=True)
class Links:
    """Links for readers: the daemon's address, and the URL of a commit's page with {revision}."""

    public_url: str = ""
    commit_url: str = ""

    def commit(self, revision: str) -> str:
        """Return the URL of a commit's page, or "" if there is none."""
        if not self.commit_url or not re.fullmatch(r"[0-9a-f]{7,64}", revision):
            return ""
        return self.commit_url.replace("{revision}", revision)

    def page(self, event: Event) -> str:
        """Return the URL of Groundcrew's page about the event's subject, or "" if there is none."""
        if not self.public_url:
            return ""
        kind, _, name = event.object.partition("/")
        key = str(event.data.get("key", "")) if event.kind == "BuildFailed" else ""
        if re.fullmatch(r"[0-9a-f]{16}", key):
            path = f"builds/{key}"
        elif kind in ("instance", "environment") and 0 < len(name) <= NAME:
            path = f"{kind}s/{quote(name, safe='')}"
        else:
            path = ""
        return f"{self.public_url.rstrip('/')}/{path}"


def identity(event: Event) -> tuple[str, ...]:
    """Return a key that is equal for events that report the same thing about the same commit."""
    detail = event.message if event.kind in ("ObjectStalled", "PruneHeld") else ""
    asked = tuple(str(event.data.get(key, "")) for key in ("trigger", "who", "from", "to"))
    return event.kind, event.object, event.revision, event.reason, *asked, detail


def is_news(event: Event, earlier: Iterable[Event]) -> bool:
    """Return True if the event is news; `earlier` are its object's prior events, newest first."""
    mine = identity(event)
    for other in earlier:
        if identity(other) == mine:
            return False
        if other.kind in NEWS:
            return True
        if other.kind in KINDS and other.kind not in REPEATABLE:
            return True
    return True


UNFINISHED = frozenset({"ActivationAborted", "Degraded", "RolledBack"})
"""Ends of an activation whose events lack the planned changes; its start has them."""


def with_beginning(event: Event, earlier: Iterable[Event]) -> Event:
    """Return the event with the planned changes of its activation; `earlier` as for `is_news`."""
    if event.kind not in UNFINISHED:
        return event
    began = _start_of(event, earlier)
    return event if began is None else replace(event, data={**began.data, **event.data})


def _start_of(event: Event, earlier: Iterable[Event]) -> Event | None:
    """Return the event that started the event's activation, known by the activation's id.

    Events of an earlier version have no id: their start is the newest of the same revision.
    """
    for other in (event, *earlier):
        if other.kind == "ActivationStarted":
            if "activation" in event.data:
                if other.data.get("activation") == event.data["activation"]:
                    return other
            else:
                return other if other.revision == event.revision else None
        elif other.kind == "ActivationActive" and other is not event:
            return None
    return None


def activation_of(event: Event, earlier: Iterable[Event]) -> int:
    """Return the id of the event that started the event's activation, or 0 if there is none.

    A start that was not news counts as the same start as the one that was; `earlier` as for
    `is_news`.
    """
    if not event.kind.startswith("Activation") and event.kind not in UNFINISHED:
        return 0
    began = _start_of(event, earlier)
    if began is None:
        return 0
    for other in (one for one in earlier if one.id < began.id):
        if identity(other) == identity(began):
            began = other
        elif other.kind in NEWS or (other.kind in KINDS and other.kind not in REPEATABLE):
            break
    return began.id


def make_fact(
    event: Event,
    links: Links,
    log_of: Callable[[str], Sequence[str]] = lambda _: (),
    clean: Callable[[str], str] = lambda text: text,
) -> Fact | None:
    """Return the fact for an event, or None if nobody needs to be notified.

    `log_of` returns the last lines of a build's log by its key; `clean` removes secrets from a
    text.
    """
    kind = KINDS.get(event.kind)
    if kind is None or _is_quiet(event):
        return None

    def text(value: object, limit: int = LINE) -> str:
        return cut(plain(clean(str(value or ""))), limit)

    name = text(event.object.partition("/")[2]) or "environments repo"
    data = event.data
    key = str(data.get("key", "")) if event.kind == "BuildFailed" else ""
    who, trigger = text(data.get("who"), NAME), text(data.get("trigger"), NAME)
    phrase = OTHERS.get((trigger, event.kind), kind.words).format(who=who or "an operator")
    asked = trigger in ("", "commit")  # requested by the commit that is named
    revision = event.revision if asked else ""
    return Fact(
        id=event.id,
        at=event.at,
        kind=event.kind,
        severity=str(kind.severity),
        title=f"{name}: {phrase}",
        object=text(event.object),
        name=name,
        team=text(event.team),
        reason=text(event.reason) if kind.severity is not Severity.INFO else "",
        message=text(event.message, MESSAGE),
        place=text(data.get("place")),
        advice=kind.advice.format(name=name, object=text(event.object)),
        revision=revision,
        author=text(data.get("author")) if asked else "",
        subject=text(data.get("subject")) if asked else "",
        commit_url=links.commit(revision),
        url=links.page(event),
        environment=text(data.get("environment")),
        build=text(data.get("build") or data.get("to")),
        previous_build=text(data.get("from")),
        added=_list(data.get("packages_added"), text),
        removed=_list(data.get("packages_removed"), text),
        changed=_list(data.get("packages_changed"), text),
        grown=_list(data.get("imports_grown"), text),
        seconds=_number(data.get("seconds")),
        phases=_phases(data.get("phases")),
        log=tuple(text(line) for line in log_of(key)) if key else (),
        trigger=trigger,
        who=who,
    )


def _is_quiet(event: Event) -> bool:
    """Return True for a no-op, or for an activation that was only replaced by a newer one."""
    if event.kind in ("ActivationStarted", "ActivationActive"):
        return event.data.get("from") == event.data.get("to") and "to" in event.data
    return event.kind == "ActivationAborted" and Reason(event.reason).policy.withdraws


def _list(value: object, text: Callable[[object], str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    kept = tuple(text(item) for item in value[:PACKAGES])
    more = len(value) - len(kept)
    return (*kept, f"and {more} more") if more else kept


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _phases(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {str(k): round(n, 3) for k, v in value.items() if (n := _number(v)) is not None}


def plain(text: str) -> str:
    """Return `text` without control and direction characters and without credentials in URLs."""
    return shown(UNSEEN.sub("", text))


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters, with an ellipsis if the text was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
