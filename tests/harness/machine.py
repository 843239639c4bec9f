"""Invariants of an instance's record, and of its updates, by the state machine of activations."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.core.machine import FINAL, SWITCHED, TABLE, UNTOUCHED
from reconciler.core.model import Activation, InstanceRecord
from reconciler.core.phases import Step
from reconciler.core.restarts import part_of
from tests.fakes.airflow import LAYOUT, Airflow, content

FORWARD = UNTOUCHED | SWITCHED
TURNED = frozenset(Step) - FORWARD - FINAL

WITH_ACTIVATION: dict[str, Callable[[InstanceRecord, Activation], bool]] = {
    "it has not ended": lambda _, a: a.step not in FINAL,
    "its base is known": lambda r, _: r.runtime is not None,
    "it returns to the current build": lambda r, a: a.origin.build == r.current.build,
    "its newest phase is that of its step": lambda _, a: a.phases[-1][0] == a.phase,
    "it does not wait to start": lambda r, _: r.wait is None,
    "it turned back because of a problem": lambda _, a: (
        a.problem is not None or a.step not in TURNED
    ),
    "it is degraded because going back failed": lambda _, a: (
        a.reverts > 0 or a.step is not Step.DEGRADED
    ),
    "it does not go forward to a build in quarantine": lambda r, a: (
        a.step not in FORWARD or a.target.build not in {mark.build_id for mark in r.quarantines}
    ),
}
"""What is true of an instance while an activation is in progress."""

ALWAYS: dict[str, Callable[[InstanceRecord], bool]] = {
    "the last activation has ended": lambda r: r.last is None or r.last.step in FINAL,
    "the previous build is for this base": lambda r: (
        r.previous.build is None or (r.runtime is not None and r.previous.runtime == r.runtime.key)
    ),
    "the previous build is another": lambda r: (
        r.previous.build is None or r.previous.build != r.current.build
    ),
}


def check_processes(record: InstanceRecord, real: Airflow) -> None:
    """Check that an instance at rest runs what its record says, and that no restart is missing.

    Every component runs all that it would load of the current build, though perhaps of an earlier
    build, which the record then names.
    """
    current = record.current.build
    if record.may_load_another or current is None or real.runtime_key != record.current.runtime:
        return
    for component, build in real.selective.items():
        assert build in (current, *dict(record.earlier).get(component, ())), (real, record)
        assert build is not None
        parts = {part_of(content(one), component, LAYOUT) for one in (build, current)}
        assert len(parts) == 1, f"{component} runs {build} beside {current}"


def check_record(record: InstanceRecord) -> None:
    """Check what must be true of every record that is written."""
    broken = [rule for rule, holds in ALWAYS.items() if not holds(record)]
    activation = record.activation
    if activation is not None:
        broken += [rule for rule, holds in WITH_ACTIVATION.items() if not holds(record, activation)]
    assert not broken, (broken, record)


def check_update(old: InstanceRecord | None, new: InstanceRecord) -> None:
    """Check that a record followed from the one before it by transitions of the machine.

    One update may end an activation and start the next one.
    """
    before = old.activation.step if old is not None and old.activation is not None else None
    after = new.activation.step if new.activation is not None else None
    assert before is after or after in _following(before), f"{before} → {after}: {new}"


def _following(step: Step | None) -> set[Step | None]:
    """Return the steps at which an activation can be after one transition; None: it has ended."""
    following: set[Step | None] = set(TABLE[step].values())
    if following & FINAL:
        following |= {None, *TABLE[None].values()}
    return following
