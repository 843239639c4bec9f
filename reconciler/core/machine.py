"""The state machine of an activation: every state that one can be in, and why it leaves it.

An activation moves an instance from the deployment `origin` to the deployment `target`. Its state
is its step. Each step that is neither final nor DEGRADED has exactly one effect, which is
idempotent: after a crash it is simply carried out again.

A step is left for one of two causes. A `Verdict` is the outcome of its effect; NOT_YET, and a
verdict that the table does not list, stay at the step and repeat the effect later. A `Decision` is
made by the daemon without an effect, because what is wanted or what is there has changed. `TABLE`
holds both, and `moved` is the only function that changes the step of an activation.

Forward. OBSERVE reads what has to be restored later and changes nothing. PAUSE and DRAIN empty the
instance: until DRAIN has ended, no process and no pointer was touched, so the activation can be
redirected to another build or given up at no cost. SWITCH moves the pointer, RESTART starts the
components anew, and PROBE is the gate: whatever fails from SWITCH to PROBE turns the activation
back at once, as no task has run on the new build. An operator may turn it back there, and during
WATCH. RELEASE lets tasks start, so from then on the way
back must empty the instance again. WATCH keeps the way back open for a while; after it the build is
active (DONE) and `current` of the instance changes, for the first time.

Given up. RELEASE_ABORT restores the pools, and the activation ends in ABORTED: nothing has changed.
OBSERVE may end there directly, as it has changed nothing. WITHDRAW is for a base that is changed
after SWITCH: the pointer goes back without a restart, since the pods that would load the build are
being replaced. Whatever becomes of that, the pools are restored.

Back. PAUSE_BACK and DRAIN_BACK empty an instance on which tasks have run; they are tried until they
work. If Airflow does not answer them, only its servers, which run no tasks, are put on the old
build, and the pause is tried again. SWITCH_BACK, RESTART_BACK and PROBE_BACK mirror the way
forward, RELEASE_BACK ends it in ROLLED_BACK.

Degraded. If the way back fails as well, neither build works. DEGRADED has no effect: it waits, goes
back again when its time has come, or goes forward to a newer build that is Ready. That is a new
activation which begins at SWITCH, since the instance is still paused and the pools recorded by the
one that failed are still to be restored.

What the table does not show:

- A failed RELEASE, RELEASE_BACK or RELEASE_ABORT is tried until it works. These restore pools, and
  no other state would be better than trying again.
- An activation never disappears. The record of an instance whose file is deleted is kept, with
  `removed`, until its activation has ended; that has no target any more, so before SWITCH it is
  given up, and after SWITCH it is completed.
- While an activation runs, `origin` is the instance's `current` deployment. A base that changes
  under a DEGRADED one changes both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from reconciler.core.definitions import Commit
from reconciler.core.model import Activation, Deployment, InstanceRecord
from reconciler.core.phases import Step, Trigger, Verdict


class Decision(StrEnum):
    """Cause of a transition that is no outcome of an effect."""

    START = "start"  # the instance should have another deployment, and nothing prevents it
    REDIRECT = "redirect"  # it should have yet another one: a new activation at the same step
    GIVE_UP = "give-up"  # it should stay as it is, is suspended, or another Airflow is defined
    WITHDRAW = "withdraw"  # its base is being changed, so no process will load the new build
    ABORT = "abort"  # an operator turns it back
    ACCEPT = "accept"  # an operator decides what follows: the watch ends as if it were over
    GO_BACK = "go-back"  # the time of the next attempt to go back has come
    GO_FORWARD = "go-forward"  # another build is Ready, or the same one after a passing failure


Cause = Verdict | Decision

TABLE: Mapping[Step | None, Mapping[Cause, Step]] = {
    None: {Decision.START: Step.OBSERVE},
    # ---- forward, nothing touched yet
    Step.OBSERVE: {
        Verdict.OK: Step.PAUSE,
        Verdict.FAILED: Step.ABORTED,
        Decision.REDIRECT: Step.OBSERVE,
        Decision.GIVE_UP: Step.RELEASE_ABORT,
    },
    Step.PAUSE: {
        Verdict.OK: Step.DRAIN,
        Verdict.FAILED: Step.RELEASE_ABORT,
        Decision.REDIRECT: Step.PAUSE,
        Decision.GIVE_UP: Step.RELEASE_ABORT,
    },
    Step.DRAIN: {
        Verdict.OK: Step.SWITCH,
        Verdict.FAILED: Step.RELEASE_ABORT,
        Decision.REDIRECT: Step.DRAIN,
        Decision.GIVE_UP: Step.RELEASE_ABORT,
    },
    # ---- forward, switched
    Step.SWITCH: {
        Verdict.OK: Step.RESTART,
        Verdict.FAILED: Step.SWITCH_BACK,
        Decision.ABORT: Step.SWITCH_BACK,
        Decision.WITHDRAW: Step.WITHDRAW,
    },
    Step.RESTART: {
        Verdict.OK: Step.PROBE,
        Verdict.FAILED: Step.SWITCH_BACK,
        Decision.ABORT: Step.SWITCH_BACK,
        Decision.WITHDRAW: Step.WITHDRAW,
    },
    Step.PROBE: {
        Verdict.OK: Step.RELEASE,
        Verdict.FAILED: Step.SWITCH_BACK,
        Decision.ABORT: Step.SWITCH_BACK,
        Decision.WITHDRAW: Step.WITHDRAW,
    },
    Step.RELEASE: {Verdict.OK: Step.WATCH, Decision.WITHDRAW: Step.WITHDRAW},
    Step.WATCH: {
        Verdict.OK: Step.DONE,
        Verdict.FAILED: Step.PAUSE_BACK,
        Decision.ABORT: Step.PAUSE_BACK,
        Decision.ACCEPT: Step.DONE,
        Decision.WITHDRAW: Step.WITHDRAW,
    },
    # ---- given up
    Step.WITHDRAW: {Verdict.OK: Step.RELEASE_ABORT, Verdict.FAILED: Step.RELEASE_ABORT},
    Step.RELEASE_ABORT: {Verdict.OK: Step.ABORTED},
    # ---- back
    Step.PAUSE_BACK: {Verdict.OK: Step.DRAIN_BACK, Verdict.FAILED: Step.SWITCH_SERVERS_BACK},
    Step.DRAIN_BACK: {Verdict.OK: Step.SWITCH_BACK, Verdict.FAILED: Step.PAUSE_BACK},
    Step.SWITCH_SERVERS_BACK: {
        Verdict.OK: Step.RESTART_SERVERS_BACK,
        Verdict.FAILED: Step.PAUSE_BACK,
    },
    Step.RESTART_SERVERS_BACK: {Verdict.OK: Step.PAUSE_BACK, Verdict.FAILED: Step.PAUSE_BACK},
    Step.SWITCH_BACK: {Verdict.OK: Step.RESTART_BACK, Verdict.FAILED: Step.DEGRADED},
    Step.RESTART_BACK: {Verdict.OK: Step.PROBE_BACK, Verdict.FAILED: Step.DEGRADED},
    Step.PROBE_BACK: {Verdict.OK: Step.RELEASE_BACK, Verdict.FAILED: Step.DEGRADED},
    Step.RELEASE_BACK: {Verdict.OK: Step.ROLLED_BACK},
    # ---- degraded
    Step.DEGRADED: {Decision.GO_BACK: Step.SWITCH_BACK, Decision.GO_FORWARD: Step.SWITCH},
    # ---- the ends
    Step.DONE: {},
    Step.ROLLED_BACK: {},
    Step.ABORTED: {},
}
"""Step and cause → next step; None is the absence of an activation."""


def _steps_with(cause: Cause) -> frozenset[Step]:
    return frozenset(step for step, row in TABLE.items() if step is not None and cause in row)


FINAL = frozenset(step for step, row in TABLE.items() if step is not None and not row)
"""Steps at which an activation ends."""

UNTOUCHED = _steps_with(Decision.GIVE_UP)
"""Steps before the pointer moves: the target may still change, or be given up."""

SWITCHED = _steps_with(Decision.WITHDRAW)
"""Steps with which an activation goes forward once the pointer may have moved."""

TURNS_BACK = _steps_with(Decision.ABORT)
"""Steps at which an operator may turn an activation back once the pointer may have moved."""

PAUSES_BACK = frozenset(
    {Step.PAUSE_BACK, Step.DRAIN_BACK, Step.SWITCH_SERVERS_BACK, Step.RESTART_SERVERS_BACK}
)
"""Steps that empty the instance again after a watch that failed: tried until they work."""

RESTARTS = frozenset({Step.RESTART, Step.RESTART_BACK, Step.RESTART_SERVERS_BACK})
"""Steps that restart components; when each began is recorded first."""

RELEASES = frozenset({Step.RELEASE, Step.RELEASE_BACK, Step.RELEASE_ABORT})
"""Steps that only restore the slots of pools: retried until they work."""


# -------------------------------------------------------------------------------- transitions


@dataclass(frozen=True, slots=True)
class Target:
    """Deployment that an instance should be on, and the reason.

    `who` is the operator who requested it ("" if a commit did).
    """

    deployment: Deployment
    trigger: Trigger
    revision: str
    who: str = ""
    commit: Commit | None = None


def started(record: InstanceRecord, target: Target, at: float) -> Activation:
    """Return a new activation of an instance that has none."""
    return _begun(record, target, TABLE[None][Decision.START], at)


def redirected(
    record: InstanceRecord, activation: Activation, target: Target, at: float
) -> Activation:
    """Return the activation that replaces one which has touched nothing, at the same step."""
    return replace(
        activation,
        id=_identity(record, target, at),
        step=TABLE[activation.step][Decision.REDIRECT],
        target=replace(target.deployment, load_into=activation.target.load_into),
        revision=target.revision,
        trigger=target.trigger,
        who=target.who,
        commit=target.commit,
    )


def gone_forward(
    record: InstanceRecord, broken: Activation, target: Target, at: float
) -> Activation:
    """Return the activation that leaves a degraded one for another build, or tries its build again.

    The latter goes on counting how often going back failed: it is one more attempt, no new start.
    """
    return replace(
        _begun(record, target, TABLE[broken.step][Decision.GO_FORWARD], at),
        broken_load_into=tuple(sorted(broken.components)),
        pools=broken.pools,
        baseline=broken.baseline,
        expected_dags=broken.expected_dags,
        reverts=broken.reverts if target.deployment.build == broken.target.build else 0,
    )


def moved(activation: Activation, cause: Cause, at: float) -> Activation:
    """Return the activation at its next step. Raises KeyError if its step has none for `cause`."""
    step = TABLE[activation.step][cause]
    entered = replace(
        activation,
        step=step,
        step_since=at,
        restarted_at=at if step in RESTARTS else activation.restarted_at,
        failures=0,
        not_before=0.0,
        held=None,
    )
    if entered.phase is activation.phase:
        return entered
    return replace(entered, phases=(*activation.phases, (str(entered.phase), at))[-60:])


def _begun(record: InstanceRecord, target: Target, step: Step, at: float) -> Activation:
    loading = record.current.load_into or record.definition.load_into
    begun = Activation(
        id=_identity(record, target, at),
        origin=replace(record.current, load_into=loading),
        target=target.deployment,
        trigger=target.trigger,
        revision=target.revision,
        commit=target.commit,
        step=step,
        started_at=at,
        step_since=at,
        who=target.who,
    )
    return replace(begun, phases=((str(begun.phase), at),))


def _identity(record: InstanceRecord, target: Target, at: float) -> str:
    seed = f"{record.name}\0{target.deployment.build}\0{at!r}"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


# --------------------------------------------------------------------------------- properties


def stuck(activation: Activation) -> bool:
    """Return True if it continues only once something outside is repaired, by whatever means.

    Rolling back failed, tasks do not finish, or the slots of pools cannot be restored.
    """
    waits = activation.failures > 0 or activation.held is not None
    return activation.reverts > 0 or (activation.step in RELEASES | PAUSES_BACK and waits)


def is_busy(activation: Activation) -> bool:
    """Return True if an activation counts towards how many may run at once."""
    return activation.step is not Step.WATCH and not stuck(activation)
