"""Preview of what the daemon would do with the newest revision."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gitsource.source import Source
from reconciler.core.decide import decide
from reconciler.core.errors import GroundcrewError
from reconciler.core.model import Records
from reconciler.core.phases import ActivationPhase
from reconciler.core.reasons import Reason
from reconciler.core.world import World
from reconciler.daemon.open_records import current
from reconciler.daemon.policy import policy_of
from reconciler.daemon.windows import window_state
from reconciler.settings import Settings

WAITING = str(ActivationPhase.WAITING)


@dataclass(frozen=True, slots=True)
class PlanLine:
    """Change that the newest revision would make to one object, and what it waits for."""

    object: str
    action: str
    message: str
    waits_on: str = ""

    def document(self) -> dict[str, str]:
        """Return the line for `-o json`."""
        return {
            "object": self.object,
            "action": self.action,
            "reason": self.message,
            "waits_on": self.waits_on,
        }


def plan(settings: Settings) -> list[PlanLine]:
    """Return what would change at the newest revision of the repo; nothing is recorded.

    Before the first run of a daemon, everything is new.
    """
    try:
        records = current(settings)
    except GroundcrewError as error:
        if error.reason is not Reason.NO_RECORDS:
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
    lines = [PlanLine(e.object, str(e.kind), e.message) for e in change.events]
    changed = {i.name for i in change.instances}
    unchanged = [i for i in records.instances.values() if i.name not in changed]
    lines += [
        PlanLine(f"instance/{i.name}", WAITING, "an activation is wanted", i.wait.message)
        for i in (*change.instances, *unchanged)
        if i.wait
    ]
    if definitions is not None:
        lines += [
            PlanLine(f.object, "Stalled", f"{f.place}: {f.message}") for f in definitions.findings
        ]
    return lines
