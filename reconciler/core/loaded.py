"""Builds that running components have loaded, compared with the records of their instance.

Drivers observe it (by proofs that loaders leave), the probe of an activation asks for it, and each
look at the world compares it again: a pod that restarts by itself may fall back at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.model import Problem
from reconciler.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Loaded:
    """A process of a component and what it has loaded: a build, or None for the bare base.

    `process` names it for people. `pinned`: its environment asked for that build. `local`: it reads
    it, at least in part, from folders of its own machine. `said` is what went wrong, in the
    loader's words. `proven` is False if it certainly runs without the loader.
    """

    component: str
    process: str
    build: str | None
    pinned: bool = False
    local: bool = False
    said: str = ""
    proven: bool = True


def disagreement(loaded: Loaded, build: str | None) -> Problem | None:
    """Return why a process does not run `build` (None: the bare base); None if it does.

    A process that was pinned on purpose is as somebody wanted it.
    """
    if loaded.pinned or loaded.build == build:
        return None
    who = f"{loaded.component} ({loaded.process})"
    wanted = f"build {build}" if build is not None else "the bare base"
    if not loaded.proven:
        return Problem(Reason.LOADER_MISSING, f"{who} runs without the loader instead of {wanted}")
    if loaded.build is None:
        why = loaded.said or "the pointer that it read names no build for it"
        return Problem(
            Reason.LOADER_FELL_BACK, f"{who} runs on the bare base instead of {wanted}: {why}"
        )
    return Problem(
        Reason.OTHER_BUILD_LOADED, f"{who} has loaded build {loaded.build} instead of {wanted}"
    )
