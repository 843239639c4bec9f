"""What the CLI reads and asks for without being the daemon."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from gitsource.source import Source
from reconciler.core.decide import decide
from reconciler.core.definitions import Definitions
from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.model import Records
from reconciler.core.world import World
from reconciler.daemon.garbage import PAUSED, collect
from reconciler.daemon.rooms import Rooms, policy_of
from reconciler.daemon.windows import window_state
from reconciler.settings import Settings
from reconciler.share.gc import Collected
from reconciler.store.store import Store


@dataclass(frozen=True, slots=True)
class PlanLine:
    """What the newest revision would do to one object, and on what that waits."""

    object: str
    action: str
    reason: str
    waits_on: str = ""


def open_store(settings: Settings) -> Store:
    """The records, for reading and for queueing requests.

    Raises Stalled when there are none, as the daemon has never run with these settings; Retryable
    when there are none yet, or none of this version.
    """
    file = settings.database_url.removeprefix("sqlite:///")
    if file != settings.database_url:  # SQLite would make it
        path = Path(file)
        if not path.exists():
            raise Stalled(
                "NoRecords",
                f"{path} does not exist: no daemon has run with these settings; start one with "
                f"`groundcrew run`, or point GROUNDCREW_STATE_DIR at its state directory",
            )
    store = Store(settings.database_url)
    try:
        store.check()
    except GroundcrewError:
        store.close()
        raise
    return store


def current(settings: Settings) -> tuple[Definitions | None, Records]:
    """The records; definitions are in them as accepted, so none are read from the repo."""
    store = open_store(settings)
    try:
        return None, store.load()
    finally:
        store.close()


def plan(settings: Settings) -> list[PlanLine]:
    """What would change at the newest revision of the environments repo; nothing is recorded.

    Before a daemon has run everything is new.
    """
    try:
        _, records = current(settings)
    except GroundcrewError as error:
        if error.reason != "NoRecords":
            raise
        records = Records()
    definitions = Source(settings.git, settings.state_dir, settings.secrets_dir).poll()
    now = time.time()
    decided = decide(
        World(
            now=now,
            records=records,
            definitions=definitions,
            windows={
                i.name: window_state(i.definition.window, now)
                for i in records.instances.values()
                if i.definition.window is not None
            },
            policy=policy_of(settings),
        )
    )
    change = decided.change
    lines = [PlanLine(e.object, e.kind, e.message) for e in change.events]
    lines += [
        PlanLine(f"instance/{i.name}", "Waiting", "an activation is wanted", i.wait)
        for i in change.instances
        if i.wait
    ]
    waiting = {i.name for i in change.instances}
    lines += [
        PlanLine(f"instance/{i.name}", "Waiting", "an activation is wanted", i.wait)
        for i in records.instances.values()
        if i.wait and i.name not in waiting
    ]
    if definitions is not None:
        lines += [
            PlanLine(f.object, "Stalled", f"{f.place}: {f.message}") for f in definitions.findings
        ]
    return lines


def pause_collection(settings: Settings, *, pause: bool) -> None:
    """Let no garbage be collected, here and in the daemon; or let it be collected again."""
    store = open_store(settings)
    try:
        store.name(PAUSED, "yes" if pause else "no")
    finally:
        store.close()


def collect_garbage(settings: Settings, *, dry_run: bool) -> Collected:
    """Collect garbage now."""
    rooms = Rooms(settings)
    try:
        return collect(rooms, rooms.store.load(), time.time(), dry_run=dry_run)
    finally:
        rooms.close()
        rooms.store.close()
