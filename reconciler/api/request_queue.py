"""Operators' requests over HTTP, queued in the records as the command line does.

The holder of the lease carries them out, and each becomes an event with the operator's name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.exceptions import HTTPException

from reconciler.api.auth import Person
from reconciler.api.view import View
from reconciler.core.model import Options, Request, Verb
from reconciler.core.requests import misplaced, refusal, target_kinds
from reconciler.core.world import RecordsView
from reconciler.store import wakes
from reconciler.store.store import Store

log = logging.getLogger(__name__)

NO_OPTIONS = Options()


class Asking:
    """Queue for operators' requests, which wakes the daemon."""

    def __init__(self, store: Store, view: View, wake: Callable[[], None]) -> None:
        self._store = store
        self._view = view
        self._wake = wake

    def ask(
        self, person: Person, verb: Verb, target: str, options: Options = NO_OPTIONS
    ) -> Request:
        """Queue a request. Raises HTTPException 404 or 409 if its target is missing or invalid."""
        kind, _, name = target.partition("/")
        kinds = target_kinds(verb)
        if kind not in kinds:
            meant = " or ".join(f"{k}/NAME" for k in kinds) if any(kinds) else "no target"
            raise HTTPException(409, f"target: {verb} is for {meant}")
        shown = self._view.now()
        known = {"environment": shown.environments, "instance": shown.instances, "": {"": None}}
        if name not in known[kind]:
            raise HTTPException(404, f"no {kind} {name}")
        if mistaken := misplaced(verb, options):
            raise HTTPException(409, mistaken)
        at = time.time()
        if kind == "instance":
            view = RecordsView(shown.records, at)
            if refused := refusal(view, verb, shown.records.instances[name], options):
                raise HTTPException(409, f"{verb} is refused: {refused}")
        if verb is Verb.CONFIRM_PRUNE and shown.records.repo.held is None:
            raise HTTPException(409, "nothing is held back")
        who = f"{person.name} (HTTP)"
        number = self._store.submit(who, verb, target, at, options)
        log.info("request %d: %s %s, asked by %s", number, verb, target, who)
        self._wake()
        wakes.tell(self._store.engine, wakes.LOOK)  # the leader may be another replica
        return Request(number, at, who, verb, target, options)
