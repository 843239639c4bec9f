"""Facts: what people are told of, made from events, in the words of every channel.

A fact is complete in itself: what changed, for whom, by which commit and author, how long it took,
and what to do when it failed. Channels (Slack, webhooks) only lay it out. Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import quote

from reconciler.core.addresses import shown
from reconciler.core.model import Event
from reconciler.core.steps import WITHDRAWN

MESSAGE = 3000  # characters kept of a message
LINE = 300  # characters kept of a line of a log
PACKAGES = 500  # kept of each list
NAME = 63  # characters of an object's name
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


class Severity(StrEnum):
    """How grave a fact is; routes choose by it."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of event means to people; `advice` may name {name} and {object}."""

    severity: Severity
    words: str
    advice: str = ""


KINDS: Mapping[str, Kind] = {
    "ActivationStarted": Kind(Severity.INFO, "activation started"),
    "ActivationActive": Kind(Severity.INFO, "active"),
    "ActivationAborted": Kind(
        Severity.WARNING,
        "activation given up",
        "Nothing was switched; the instance runs what it had. It is tried again by itself.",
    ),
    "BuildFailed": Kind(
        Severity.WARNING,
        "build failed",
        "Nothing live was touched. Mend it and commit; `groundcrew logs {name}` has all.",
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
    "ObjectStalled": Kind(
        Severity.WARNING, "stalled", "This object is left as it is until the file is mended."
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
        "EnvironmentAccepted", "PruneConfirmed", "RefreshRequested", "Resumed", "RetryRequested",
        "RollbackRequested", "SourceChanged",
    }
)  # fmt: skip
"""Events after which the same fact is news again."""

OTHERS: Mapping[tuple[str, str], str] = {
    ("operator", "ActivationStarted"): "being rolled back by {who}",
    ("operator", "ActivationActive"): "rolled back by {who}",
    ("operator", "ActivationAborted"): "rollback by {who} given up",
    ("operator", "RolledBack"): "rollback by {who} failed",
    ("operator", "Degraded"): "DEGRADED, in a rollback by {who}",
    ("deletion", "ActivationStarted"): "going to the bare base, as no environment names it",
    ("deletion", "ActivationActive"): "on the bare base, as no environment names it",
}
"""What an activation is called that no commit asked for, by its trigger."""

REPEATABLE = frozenset({"ActivationStarted", "ActivationAborted", "SourceFailed"})
"""Kinds that come again and again by themselves: they make no other fact news again."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened. Texts are plain and bounded; `seconds` and `phases` are durations.

    `grown` says in which way imports cost more than with the build before.
    `object` is "environment/…", "instance/…", or the repo; `name` is its short name. `at` is in
    seconds since the epoch. `commit_url` and `url` (Groundcrew's page) are "" where not known.
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
    activation: int = 0  # id of the event with which it began; 0: it is of none
    trigger: str = ""  # of an activation: "commit", "operator", "deletion", "base"
    who: str = ""  # the operator who asked

    @property
    def words(self) -> str:
        """What happened, without the object's name."""
        return self.title.removeprefix(f"{self.name}: ")

    @property
    def failed(self) -> bool:
        """Does it tell of something wrong."""
        return self.severity != Severity.INFO


@dataclass(frozen=True, slots=True)
class Links:
    """Where a reader finds more: the daemon's address, and a commit's page with {revision}."""

    public_url: str = ""
    commit_url: str = ""

    def commit(self, revision: str) -> str:
        """The page of a commit; "" where there is none."""
        if not self.commit_url or not re.fullmatch(r"[0-9a-f]{7,64}", revision):
            return ""
        return self.commit_url.replace("{revision}", revision)

    def page(self, event: Event) -> str:
        """Groundcrew's own page of what the event is about; "" where there is none."""
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
    """What the event tells: equal for two events that tell the same of the same commit."""
    detail = event.message if event.kind in ("ObjectStalled", "PruneHeld") else ""
    asked = tuple(str(event.data.get(key, "")) for key in ("trigger", "who", "from", "to"))
    return event.kind, event.object, event.revision, event.reason, *asked, detail


def is_news(event: Event, earlier: Iterable[Event]) -> bool:
    """Is it news after `earlier`, the same object's events before it, newest first."""
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
"""Ends of an activation whose events do not say what it was to change; its beginning's does."""


def with_beginning(event: Event, earlier: Iterable[Event]) -> Event:
    """The event, with what its activation was to change; `earlier` as for `is_news`."""
    if event.kind not in UNFINISHED:
        return event
    for other in earlier:
        if other.kind == "ActivationStarted":
            if other.revision != event.revision:
                break
            return replace(event, data={**other.data, **event.data})
        if other.kind == "ActivationActive":
            break
    return event


def activation_of(event: Event, earlier: Iterable[Event]) -> int:
    """Id of the event with which the activation began that `event` tells of; 0 when of none.

    Beginnings that were no news are one with the one that was; `earlier` as for `is_news`.
    """
    if not event.kind.startswith("Activation") and event.kind not in UNFINISHED:
        return 0
    began: Event | None = None
    for other in (event, *earlier):
        if began is None:
            if other.kind == "ActivationStarted":
                began = other
            elif other.kind == "ActivationActive" and other is not event:
                return 0
        elif identity(other) == identity(began):
            began = other
        elif other.kind in NEWS or (other.kind in KINDS and other.kind not in REPEATABLE):
            break
    return began.id if began is not None else 0


def make_fact(
    event: Event,
    links: Links,
    log_of: Callable[[str], Sequence[str]] = lambda _: (),
    clean: Callable[[str], str] = lambda text: text,
) -> Fact | None:
    """The fact that an event tells; None for what nobody needs to hear of.

    `log_of` gives the last lines of a build's log by its key; `clean` takes secrets out of a text.
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
    words = OTHERS.get((trigger, event.kind), kind.words).format(who=who or "an operator")
    asked = trigger in ("", "commit")  # by the commit that is named
    revision = event.revision if asked else ""
    return Fact(
        id=event.id,
        at=event.at,
        kind=event.kind,
        severity=str(kind.severity),
        title=f"{name}: {words}",
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
    """A no-op, or an activation that only made way for a newer one."""
    if event.kind in ("ActivationStarted", "ActivationActive"):
        return event.data.get("from") == event.data.get("to") and "to" in event.data
    return event.kind == "ActivationAborted" and event.reason in WITHDRAWN


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
    """`text` without control and direction characters, and without credentials in addresses."""
    return shown(UNSEEN.sub("", text))


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, and it shows when there were more."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
