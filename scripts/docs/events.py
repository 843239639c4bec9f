"""Generator of docs/events.md: the meaning of each kind of event, and its data.

The texts are defined here; the tests compare the kinds with those that the code records, and the
data with the history of a daemon.
"""

from __future__ import annotations

from dataclasses import dataclass

DATA = {
    "request": "number: the request's number, as `POST /api/v1/requests` and the commands tell it",
    "who": "text: the operator's user name and machine, or the token's name and ` (HTTP)`; of an "
    "activation empty where a commit asked",
    "key": "text: the build's key in the records",
    "build": "text: the build's id, empty until it is known",
    "place": "text: `file:line:column` in the environments repo, or empty",
    "source": "text: where the DAGs come from",
    "seen": "number: DAG files that were parsed",
    "failing": "list of text: the first DAG files that fail without the build too",
    "unjudged": "list of (file, reason): the first DAG files that cannot be judged",
    "unseen": "text: why DAGs were not seen, or empty",
    "mark": "text: changes with the contents of the DAG files; empty where that is not known",
    "phase": "text: the phase that was left",
    "seconds": "number: seconds in that phase, or of the whole",
    "phases": "table: seconds by phase",
    "packages": "list of [name, version]: what is installed beside the base",
    "import_seconds": "number: seconds that importing all of it took",
    "import_files": "number: files that importing it reads",
    "import_bytes": "number: bytes of these",
    "import_opens": "number: files opened meanwhile, Python's own and the base's too",
    "import_before": "table: `build`, the id of the one before it of this environment and runtime, "
    "and its `files`, `opens`, `bytes`, `seconds`; null where none was measured",
    "import_growth": "table: of what costs clearly more now (`files`, `opens`, `bytes`, "
    "`seconds`), how many times as much",
    "imports_grown": "list of text: the same between two builds, `412 files → 980 files (+138 %)`",
    "author": "text: who made the commit; not there where no commit asked",
    "subject": "text: the commit's first line; as `author`",
    "environment": "text: the environment's name",
    "from": "text: the build id before; empty is the bare base",
    "to": "text: the build id after; empty is the bare base",
    "activation": "text: the activation's id, the same in all of its events",
    "trigger": "text: why: `commit`, `operator`, `deletion`, or `base` where that had changed",
    "packages_added": "list of text: `name version`",
    "packages_removed": "list of text: `name version`",
    "packages_changed": "list of text: `name old → new`",
    "commit_to_active": "number: seconds from seeing the commit; only where a commit asked",
    "kinds": "list of text: what has changed: `pointer`, `loader`, `build`",
    "builds": "number: builds deleted",
    "bytes": "number: bytes freed",
}
COMMIT = ("author", "subject", "environment")
ASKED = ("activation", "trigger", "who", *COMMIT)
CHANGES = ("packages_added", "packages_removed", "packages_changed", "imports_grown")
IMPORTS = ("import_seconds", "import_files", "import_bytes", "import_opens")
TIMING = ("seconds", "phases")
REQUEST = ("request", "who")
BUILD = ("key", "build")
DAGS = ("build", "source", "seen", "failing", "unjudged", "unseen", "mark")


@dataclass(frozen=True, slots=True)
class Kind:
    """Meaning of one kind of event, and the keys that its data may contain."""

    means: str
    data: tuple[str, ...] = ()


TABLES: dict[str, dict[str, Kind]] = {
    "The environments repo": {
        "SourceChanged": Kind("a new revision was read and accepted"),
        "SourceFailed": Kind("the repo does not answer, or refuses"),
        "SourceRecovered": Kind("it answers again"),
        "PruneHeld": Kind(
            "a revision lost most definitions, or most of one kind; nothing changes until it is "
            "confirmed"
        ),
        "PruneConfirmed": Kind("an operator confirmed that", REQUEST),
        "ObjectStalled": Kind("a mistake in a definition; the object stays as it was"),
        "ObjectRecovered": Kind("that mistake is gone"),
        "InstanceAdded": Kind("an instance was defined"),
        "InstanceRemoved": Kind("it is no longer defined and is left as it is"),
        "EnvironmentAccepted": Kind("an environment was defined, or asks for something else now"),
        "EnvironmentDeleted": Kind("it is no longer defined; its instances go back to the base"),
    },
    "Builds": {
        "RuntimeChanged": Kind("an instance's base is new or changed: builds are made for it"),
        "BuildQueued": Kind("a build was asked for", BUILD),
        "BuildReady": Kind(
            "it is on the share and verified; reason `ImportRegression` where its imports cost "
            "clearly more than those of the build before",
            (*BUILD, "packages", *IMPORTS, "import_before", "import_growth", *TIMING, *COMMIT),
        ),
        "BuildFailed": Kind(
            "it cannot be made as asked; nothing live was touched",
            (*BUILD, "place", "phase", *TIMING, *COMMIT),
        ),
        "BuildRetry": Kind("something that may pass was in the way; it is tried again", BUILD),
        "DagsParsed": Kind(
            "an instance's DAGs were parsed with the build before the switch; the message names "
            "those that fail already, cannot be judged or were not seen",
            DAGS,
        ),
        "DagsNotSeen": Kind(
            "none of them could be parsed before the switch; the message says why and what to do",
            DAGS,
        ),
        "BuildCancelled": Kind("a newer revision took its place", BUILD),
    },
    "Activations": {
        "ActivationStarted": Kind(
            "an instance begins to go to another build",
            ("from", "to", *CHANGES, *ASKED),
        ),
        "ActivationPhase": Kind("a phase ended and the next began", ("phase", "seconds")),
        "ActivationActive": Kind(
            "the instance is on the build, and healthy",
            ("from", "to", *CHANGES, *TIMING, "commit_to_active", *ASKED),
        ),
        "ActivationAborted": Kind(
            "it was given up: nothing was switched, or that was taken back as the base had changed",
            (*TIMING, *ASKED),
        ),
        "RolledBack": Kind(
            "it was not healthy there and is on the build before again",
            ("from", "to", *TIMING, *ASKED),
        ),
        "Quarantined": Kind("the build is not tried again on this instance", ("build",)),
        "Degraded": Kind("going back failed too; it is tried again with growing pauses", ASKED),
    },
    "What operators ask for": {
        "Suspended": Kind("nothing new begins on the object", REQUEST),
        "Resumed": Kind("that was lifted", REQUEST),
        "RetryRequested": Kind("quarantines and failures are forgotten, it is tried now", REQUEST),
        "RefreshRequested": Kind("the environment is resolved anew", REQUEST),
        "RollbackRequested": Kind(
            "an instance goes back to the build before", (*REQUEST, "from", "to")
        ),
        "RollbackRefused": Kind("there is nothing to go back to, or not now", REQUEST),
        "RequestRefused": Kind("there is no such object", REQUEST),
    },
    "The share": {
        "ShareMissing": Kind("the share is not mounted, or is another one; nothing begins"),
        "ShareBack": Kind("it is there again"),
        "Drifted": Kind(
            "what lies on the share for an instance is not as it is recorded: somebody else has "
            "changed it",
            ("kinds",),
        ),
        "DriftHealed": Kind("it is as recorded again; the message says what was written"),
        "DriftStays": Kind("it could not be put right; that is tried again"),
        "BuildNotLoaded": Kind(
            "a component runs on the bare base or another build; the reason is `LoaderFellBack`, "
            "`LoaderMissing` or `OtherBuildLoaded`, and the message has its loader's words"
        ),
        "BuildLoaded": Kind("all components run what is recorded again"),
        "GarbageCollected": Kind(
            "what no process can load any more was deleted", ("builds", "bytes")
        ),
        "GarbageFailed": Kind("that failed; it is tried again"),
    },
}
KINDS = {name: kind for table in TABLES.values() for name, kind in table.items()}

HEAD = """\
# Events

History is a list of events; none is ever changed. `groundcrew history`, the [API](api.md)
(`GET /api/v1/history`), the [pages](pages.md), messages and counters all read it. Generated by
`make generate`; the tests compare it with the code.

Every event has `id` (grows), `at` (seconds since the epoch; ISO 8601 in the API), `kind`, `object`
(`environment/NAME`, `instance/NAME`, a file, or `repo`), `team`, `reason` (one word; the kind where
there is no other), `message`, `revision` (empty where none is meant) and `data`, whose keys are
below. Keys may be added.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, kinds in TABLES.items():
        parts.append(f"\n## {title}\n\n| kind | means | data |\n|---|---|---|\n")
        for name, kind in kinds.items():
            keys = ", ".join(f"`{key}`" for key in kind.data)
            parts.append(f"| `{name}` | {kind.means} | {keys} |\n")
    parts.append("\n## Data\n\n| key | is |\n|---|---|\n")
    parts.extend(f"| `{key}` | {meaning} |\n" for key, meaning in DATA.items())
    return "".join(parts)
