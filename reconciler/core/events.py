"""Events: the kinds of entries in the history, and what each carries.

`EventKind` is the table of kinds: each member names its payload class and says what it means. To
add a kind, add a member, and record it with `Draft.event` where it is decided;
`tests/unit/test_events.py` then asks who is told of it. The names of kinds, and the JSON keys of
payloads, are part of the API: they are never renamed. `event_codec` converts payloads to JSON and
back. `metrics/notices.py` has the messages about events, `metrics/commits.py` the commit statuses.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import ClassVar, Self, TypeVar

from reconciler.core.phases import Trigger
from reconciler.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Payload:
    """Data of an event. This class itself is the payload of the kinds that carry none.

    A payload consists of fields and of smaller payloads; in JSON all of them are one object, with a
    key for each field. A field that is None is left out, or null if the class `has_nulls`. Every
    field has a default, for events of versions that did not record it.
    """

    has_nulls: ClassVar[bool] = False


NOTHING = Payload()

# ------------------------------------------------------------------- parts of several payloads


@dataclass(frozen=True, slots=True)
class RequestRef(Payload):
    """Operator's request that an event answers, by its number, and the operator's name."""

    request: int = 0
    who: str = ""


@dataclass(frozen=True, slots=True)
class BuildRef(Payload):
    """Build that an event is about: its key in the records, and its id ("" until it is known)."""

    key: str = ""
    build: str = ""


@dataclass(frozen=True, slots=True)
class Authorship(Payload):
    """Author and subject of the commit that led to an event (None: none did), and environment."""

    author: str | None = None
    subject: str | None = None
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class ActivationRef(Payload):
    """Activation that an event belongs to, and who or what asked for it.

    `trigger` is None if this version does not know it. `who` is the operator, or "".
    """

    id: str = field(default="", metadata={"key": "activation"})
    trigger: Trigger | None = Trigger.COMMIT
    who: str = ""
    authorship: Authorship = Authorship()


@dataclass(frozen=True, slots=True)
class FromTo(Payload):
    """Ids of the build before and the build after; "" is the bare base."""

    from_build: str = field(default="", metadata={"key": "from"})
    to_build: str = field(default="", metadata={"key": "to"})


@dataclass(frozen=True, slots=True)
class PackageChanges(Payload):
    """Difference between two builds, as texts: "name 1.0", "name 1.0 → 1.1", "3 → 9 files"."""

    added: tuple[str, ...] = field(default=(), metadata={"key": "packages_added"})
    removed: tuple[str, ...] = field(default=(), metadata={"key": "packages_removed"})
    changed: tuple[str, ...] = field(default=(), metadata={"key": "packages_changed"})
    imports_grown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing(Payload):
    """Duration of a build or an activation in seconds, in total and by phase."""

    seconds: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportsBefore(Payload):
    """Import cost of the previous build; None is what was not measured."""

    has_nulls: ClassVar[bool] = True

    build: str = ""
    files: int | None = None
    opens: int | None = None
    bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ImportFigures(Payload):
    """Import cost of a build; `growth` has the ratio of each measure that is a regression."""

    has_nulls: ClassVar[bool] = True

    files: int | None = field(default=None, metadata={"key": "import_files"})
    opens: int | None = field(default=None, metadata={"key": "import_opens"})
    bytes: int | None = field(default=None, metadata={"key": "import_bytes"})
    seconds: float | None = field(default=None, metadata={"key": "import_seconds"})
    before: ImportsBefore | None = field(default=None, metadata={"key": "import_before"})
    growth: Mapping[str, float] = field(default_factory=dict, metadata={"key": "import_growth"})


# ----------------------------------------------------------------------- payloads of one kind


@dataclass(frozen=True, slots=True)
class BuildReady(Payload):
    """Finished build: its packages as (name, version), its import cost and its timing."""

    ref: BuildRef = BuildRef()
    packages: tuple[tuple[str, str], ...] = ()
    imports: ImportFigures = ImportFigures()
    timing: Timing = Timing()
    authorship: Authorship = Authorship()


@dataclass(frozen=True, slots=True)
class BuildFailed(Payload):
    """Failed build: the place in the environments repo to look at, and the phase that failed."""

    ref: BuildRef = BuildRef()
    location: str = field(default="", metadata={"key": "place"})
    phase: str = ""
    timing: Timing = Timing()
    authorship: Authorship = Authorship()


@dataclass(frozen=True, slots=True)
class DagsChecked(Payload):
    """Result of parsing an instance's DAGs with a build; see `DagCheck`."""

    build: str = ""
    source: str = ""
    seen: int = 0
    failing: tuple[str, ...] = ()
    unjudged: tuple[tuple[str, str], ...] = ()
    unseen: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class ActivationStarted(Payload):
    """Planned switch, and the changes that it makes."""

    switch: FromTo = FromTo()
    changes: PackageChanges = PackageChanges()
    ref: ActivationRef = ActivationRef()


@dataclass(frozen=True, slots=True)
class RestartsLimited(Payload):
    """Components that an activation restarts, and those that keep their processes."""

    restarted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    ref: ActivationRef = ActivationRef()


@dataclass(frozen=True, slots=True)
class PhaseEnded(Payload):
    """Phase of an activation that has ended, and its duration in seconds."""

    phase: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ActivationActive(Payload):
    """Completed switch; `commit_to_active` is in seconds, None if no commit asked for it."""

    switch: FromTo = FromTo()
    changes: PackageChanges = PackageChanges()
    timing: Timing = Timing()
    commit_to_active: float | None = None
    ref: ActivationRef = ActivationRef()


@dataclass(frozen=True, slots=True)
class ActivationAborted(Payload):
    """Activation that was given up; without timing if another one took its place."""

    timing: Timing | None = None
    ref: ActivationRef = ActivationRef()


@dataclass(frozen=True, slots=True)
class RolledBack(Payload):
    """Way back, from the build that failed."""

    switch: FromTo = FromTo()
    timing: Timing = Timing()
    ref: ActivationRef = ActivationRef()


@dataclass(frozen=True, slots=True)
class Quarantined(Payload):
    """Id of a build that is in quarantine on an instance."""

    build: str = ""


@dataclass(frozen=True, slots=True)
class RollbackRequested(Payload):
    """Request to go back, and the builds from and to which it leads."""

    ref: RequestRef = RequestRef()
    switch: FromTo = FromTo()


@dataclass(frozen=True, slots=True)
class Drifted(Payload):
    """Parts of an instance on the share that have changed: "pointer", "loader", "build"."""

    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GarbageCollected(Payload):
    """Number of builds that were deleted, and of bytes that this freed."""

    builds: int = 0
    bytes: int = 0


# ---------------------------------------------------------------------------- the table of kinds


class EventKind(StrEnum):
    """Kind of an event: its name, what it `means` for users, and the class of its `payload`."""

    means: str
    payload: type[Payload]

    # The environments repo
    SOURCE_CHANGED = "SourceChanged", "a new revision was read and accepted"
    SOURCE_FAILED = "SourceFailed", "the repo does not answer, or refuses"
    SOURCE_RECOVERED = "SourceRecovered", "it answers again"
    PRUNE_HELD = (
        "PruneHeld",
        "a revision lost most definitions, or most of one kind; nothing changes until it is "
        "confirmed",
    )
    PRUNE_CONFIRMED = "PruneConfirmed", "an operator confirmed that", RequestRef
    OBJECT_STALLED = "ObjectStalled", "a mistake in a definition; the object stays as it was"
    OBJECT_RECOVERED = "ObjectRecovered", "that mistake is gone"
    INSTANCE_ADDED = "InstanceAdded", "an instance was defined"
    INSTANCE_REMOVED = "InstanceRemoved", "it is no longer defined and is left as it is"
    ENVIRONMENT_ACCEPTED = (
        "EnvironmentAccepted",
        "an environment was defined, or asks for something else now",
    )
    ENVIRONMENT_DELETED = (
        "EnvironmentDeleted",
        "it is no longer defined; its instances go back to the base",
    )

    # Builds
    RUNTIME_CHANGED = (
        "RuntimeChanged",
        "an instance's base is new or changed: builds are made for it",
    )
    BUILD_QUEUED = "BuildQueued", "a build was asked for", BuildRef
    BUILD_READY = (
        "BuildReady",
        "it is on the share and verified; reason `ImportRegression` where its imports cost clearly "
        "more than those of the build before",
        BuildReady,
    )
    BUILD_FAILED = (
        "BuildFailed",
        "it cannot be made as asked; nothing live was touched",
        BuildFailed,
    )
    BUILD_RETRY = (
        "BuildRetry",
        "something that may pass was in the way; it is tried again",
        BuildRef,
    )
    DAGS_PARSED = (
        "DagsParsed",
        "an instance's DAGs were parsed with the build before the switch; the message names those "
        "that fail already, cannot be judged or were not seen",
        DagsChecked,
    )
    DAGS_NOT_SEEN = (
        "DagsNotSeen",
        "none of them could be parsed before the switch; the message says why and what to do",
        DagsChecked,
    )
    BUILD_CANCELLED = "BuildCancelled", "a newer revision took its place", BuildRef

    # Activations
    ACTIVATION_STARTED = (
        "ActivationStarted",
        "an instance begins to go to another build",
        ActivationStarted,
    )
    RESTARTS_LIMITED = (
        "RestartsLimited",
        "only some components are restarted, as the others load nothing that differs",
        RestartsLimited,
    )
    ACTIVATION_PHASE = "ActivationPhase", "a phase ended and the next began", PhaseEnded
    ACTIVATION_ACTIVE = (
        "ActivationActive",
        "the instance is on the build, and healthy",
        ActivationActive,
    )
    ACTIVATION_ABORTED = (
        "ActivationAborted",
        "it was given up: nothing was switched, or that was taken back as the base had changed",
        ActivationAborted,
    )
    ROLLED_BACK = (
        "RolledBack",
        "it was not healthy there and is on the build before again",
        RolledBack,
    )
    QUARANTINED = "Quarantined", "the build is not tried again on this instance", Quarantined
    DEGRADED = (
        "Degraded",
        "going back failed too; it is tried again with growing pauses",
        ActivationRef,
    )

    # What operators ask for
    SUSPENDED = "Suspended", "nothing new begins on the object", RequestRef
    RESUMED = "Resumed", "that was lifted", RequestRef
    RETRY_REQUESTED = (
        "RetryRequested",
        "quarantines and failures are forgotten, it is tried now",
        RequestRef,
    )
    REFRESH_REQUESTED = "RefreshRequested", "the environment is resolved anew", RequestRef
    ROLLBACK_REQUESTED = (
        "RollbackRequested",
        "an instance goes back to the build before",
        RollbackRequested,
    )
    ACTIVATE_REQUESTED = (
        "ActivateRequested",
        "an instance's activation does not wait for the soak of earlier waves, or for its window",
        RequestRef,
    )
    ABORT_REQUESTED = (
        "AbortRequested",
        "an instance's activation is given up or turned back; its build is not tried again",
        RequestRef,
    )
    ROLLBACK_REFUSED = "RollbackRefused", "there is nothing to go back to, or not now", RequestRef
    REQUEST_REFUSED = (
        "RequestRefused",
        "there is no such object, or the request makes no sense for it; the message says why",
        RequestRef,
    )

    # The share
    SHARE_MISSING = "ShareMissing", "the share is not mounted, or is another one; nothing begins"
    SHARE_BACK = "ShareBack", "it is there again"
    DRIFTED = (
        "Drifted",
        "what lies on the share for an instance is not as it is recorded: somebody else has "
        "changed it",
        Drifted,
    )
    DRIFT_HEALED = "DriftHealed", "it is as recorded again; the message says what was written"
    DRIFT_STAYS = "DriftStays", "it could not be put right; that is tried again"
    BUILD_NOT_LOADED = (
        "BuildNotLoaded",
        "a component runs on the bare base or another build; the reason is `LoaderFellBack`, "
        "`LoaderMissing` or `OtherBuildLoaded`, and the message has its loader's words",
    )
    BUILD_LOADED = "BuildLoaded", "all components run what is recorded again"
    GARBAGE_COLLECTED = (
        "GarbageCollected",
        "what no process can load any more was deleted",
        GarbageCollected,
    )
    GARBAGE_FAILED = "GarbageFailed", "that failed; it is tried again"

    def __new__(cls, value: str, means: str, payload: type[Payload] = Payload) -> Self:
        """Create a member from its name, its meaning and its payload's class."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.means, member.payload = means, payload
        return member


class UnknownKind(str):
    """Kind of an event that another version recorded. Such an event is only shown."""

    __slots__ = ()


KNOWN: Mapping[str, EventKind] = {kind.value: kind for kind in EventKind}


def kind_of(name: str) -> EventKind | UnknownKind:
    """Return the kind of this name."""
    return KNOWN.get(name) or UnknownKind(name)


# --------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Event:
    """Entry of the history, never changed once written.

    `reason` is None where there is no other than the kind. `stored` is the payload's JSON object as
    it was read: events of other versions may have keys that the payload has no fields for.
    """

    at: float
    kind: EventKind | UnknownKind
    object: str  # "environment/analytics", "instance/analytics-prod", "repo", or a file
    team: str
    reason: Reason | None
    message: str
    revision: str = ""
    payload: Payload = NOTHING
    id: int = 0
    stored: Mapping[str, builtins.object] | None = None

    @property
    def reason_name(self) -> str:
        """The reason as it is stored and shown: the kind where there is no other."""
        return str(self.kind if self.reason is None else self.reason)


def seconds_of(payload: Payload) -> float | None:
    """Return the duration that a payload tells, or None."""
    if isinstance(payload, PhaseEnded):
        return payload.seconds
    timing = part_of(payload, Timing)
    return timing.seconds if timing is not None else None


def who_of(payload: Payload) -> str:
    """Return the operator who asked for what an event tells, or ""."""
    asked = part_of(payload, RequestRef) or part_of(payload, ActivationRef)
    return asked.who if asked is not None else ""


P = TypeVar("P", bound=Payload)


def part_of(payload: Payload, part: type[P]) -> P | None:
    """Return the payload itself or the part of it that is of class `part`, or None."""
    if isinstance(payload, part):
        return payload
    for one in fields(payload):
        value = getattr(payload, one.name)
        if isinstance(value, Payload) and (inner := part_of(value, part)) is not None:
            return inner
    return None
