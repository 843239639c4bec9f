"""View models of the pages: groups, stages, history, problems, comparisons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.api.pages import attention as problems
from reconciler.api.pages import history, phrases, stages
from reconciler.api.pages.attention import attention
from reconciler.api.pages.comparison import compare
from reconciler.api.pages.groups import STATES, Group
from reconciler.api.view import Shown
from reconciler.core.events import Event, EventKind
from reconciler.core.model import Problem, RepoState
from reconciler.core.phases import ActivationPhase, BuildPhase, Step
from reconciler.core.reasons import Reason
from reconciler.core.states import TABLE, State
from reconciler.core.statuses import status
from reconciler.store.store import Store
from tests.fakes.events import event as stored_event
from tests.fakes.fleet import (
    AT,
    OLDER,
    PACKAGES,
    RUNTIME,
    activation,
    builds,
    fill,
    instance,
    name_of,
)

P = ActivationPhase
THERE = (P.DRAINING, P.SWITCHING, P.RESTARTING, P.PROBING)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the records of nine instances in all states."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('records') / 'records.db'}")
    fill(store, 9)
    return store


def shown_of(store: Store, repo: RepoState | None = None) -> Shown:
    """Return a snapshot of the records, with another state of the repo if one is given."""
    records = store.load()
    records = records if repo is None else replace(records, repo=repo)
    current = status(None, records, AT)
    return Shown(
        1,
        records,
        current,
        {e.name: e for e in current.environments},
        {i.name: i for i in current.instances},
        dict(records.builds),
    )


# ------------------------------------------------------------------------------------------ groups


def test_every_state_has_a_group_that_agrees_with_its_health() -> None:
    """Nothing wrong is shown as healthy or suspended, and nothing ready as failed."""
    assert set(STATES) == set(State)
    for state, row in TABLE.items():
        group = STATES[state][0]
        if row.is_wrong:
            assert group in (Group.FAILED, Group.OUT_OF_SYNC, Group.PROGRESSING), state
        if group is Group.FAILED:
            assert row.is_wrong, state
    assert [s for s, (group, _) in STATES.items() if group is Group.HEALTHY] == [State.ACTIVE]


def test_a_state_that_is_wrong_has_a_next_step() -> None:
    """The list of problems tells what to do for each."""
    assert {s for s, row in TABLE.items() if row.is_wrong} <= set(problems.STEPS)


# ------------------------------------------------------------------------------------------ stages


def progress(strip: list[stages.Stage]) -> str:
    """Return stages as a line."""
    return " ".join(f"{s.name}:{s.progress}" for s in strip)


def test_stages_of_a_build_that_runs_fails_and_is_ready() -> None:
    """The current one is live, the failed one is marked, and what did not begin is ahead."""
    running, failed, ready = builds(7)[0], builds(8)[0], builds(0)[0]
    assert progress(stages.of_build(running, AT + 20)) == "Resolve:done Build:running Verify:ahead"
    assert progress(stages.of_build(failed, AT + 20)) == "Resolve:done Build:failed Verify:ahead"
    assert progress(stages.of_build(ready, AT + 20)) == "Resolve:done Build:done Verify:done"
    assert [s.seconds for s in stages.of_build(running, AT + 20)] == [9.0, 11.0, None]
    queued = replace(ready, phase=BuildPhase.QUEUED, phases=(("Queued", AT),))
    assert progress(stages.of_build(queued, AT)) == "Resolve:running Build:ahead Verify:ahead"


@pytest.mark.parametrize(
    ("step", "phases", "failed_at", "expected"),
    [
        (Step.DRAIN, THERE[:1], None, "running ahead ahead ahead ahead"),
        (Step.WATCH, (*THERE, P.WATCHING), None, "done done done done running"),
        (Step.DONE, (*THERE, P.ACTIVE), None, "done done done done done"),
        (
            Step.ROLLED_BACK,
            (*THERE, P.ROLLING_BACK, P.ROLLED_BACK),
            None,
            "done done done failed ahead",
        ),
        (
            Step.RESTART_BACK,
            (*THERE[:3], P.ROLLING_BACK),
            Step.RESTART,
            "done done failed ahead ahead",
        ),
        (Step.DEGRADED, (*THERE, P.WATCHING, P.DEGRADED), Step.WATCH, "done done done done failed"),
        (Step.ABORTED, (P.DRAINING, P.WAITING), None, "failed ahead ahead ahead ahead"),
    ],
)
def test_stages_of_an_activation(
    step: Step, phases: tuple[ActivationPhase, ...], failed_at: Step | None, expected: str
) -> None:
    """The stage that turned it back is the failed one, whether its step is recorded or not."""
    one = replace(activation(0, step, *phases), failed_at=failed_at)
    strip = stages.of_activation(one, AT + 200)
    assert [s.name for s in strip] == ["Drain", "Switch", "Restart", "Probe", "Active"]
    assert " ".join(s.progress for s in strip) == expected


def test_a_wait_stands_before_the_first_stage_of_the_activation() -> None:
    """The build is done, and what comes next may not start yet."""
    strip = stages.of_instance(builds(0)[0], None, AT + 20, waits=True)
    assert progress(strip[2:5]) == "Verify:done Drain:waiting Switch:ahead"
    assert len(strip) == 8


# ----------------------------------------------------------------------------------------- history


def happened(
    kind: str, number: int, data: dict[str, object] | None = None, name: str = "a"
) -> Event:
    """Return the event with this number, a second after the one before it."""
    kind_of_object = "environment" if kind.startswith("Build") else "instance"
    return stored_event(
        AT + number, kind, f"{kind_of_object}/{name}", "t", "", f"text {number}", "", data, number
    )


def test_an_activation_is_one_entry_with_its_steps() -> None:
    """Two instances at the same time keep apart, and the quarantine belongs to what went before."""
    events = [
        happened("ActivationStarted", 1),
        happened("ActivationStarted", 2, name="b"),
        happened("ActivationPhase", 3, {"phase": "Draining", "seconds": 2.0}),
        happened("RolledBack", 4, {"seconds": 9.0}),
        happened("Quarantined", 5, {"build": "0" * 16}),
        happened("ActivationActive", 6, {"seconds": 5.0}, name="b"),
        happened("ActivationStarted", 7),
    ]
    rows = history.entries(list(reversed(events)))
    told = [(e.head.event.kind, [s.event.id for s in e.steps]) for e in rows]
    assert told == [
        (EventKind.ACTIVATION_STARTED, [7]),
        (EventKind.ACTIVATION_ACTIVE, [2, 6]),
        (EventKind.ROLLED_BACK, [1, 3, 4, 5]),
    ]


def test_a_build_is_one_entry_and_begins_anew_when_it_is_queued_again() -> None:
    """Its tries are steps; another build, and other events, are entries of their own."""
    events = [
        happened("BuildQueued", 1, {"key": "k1"}),
        happened("BuildQueued", 2, {"key": "k2"}),
        happened("BuildRetry", 3, {"key": "k1"}),
        happened("BuildFailed", 4, {"key": "k1"}),
        happened("SourceChanged", 5),
        happened("BuildQueued", 6, {"key": "k1"}),
        happened("BuildReady", 7, {"key": "k1"}),
    ]
    rows = history.entries(list(reversed(events)))
    assert [[s.event.id for s in e.steps] for e in rows] == [[6, 7], [5], [1, 3, 4], [2]]
    assert rows[0].head.title == "Build ready"
    assert rows[0].head.group == Group.HEALTHY


def test_events_that_were_cut_off_are_still_told() -> None:
    """The beginning may be on the next page of the history."""
    rows = history.entries([happened("ActivationActive", 2), happened("ActivationPhase", 1)])
    assert [[s.event.id for s in e.steps] for e in rows] == [[1, 2]]


def test_every_kind_can_be_told_and_days_are_headings() -> None:
    """Each event is told exactly once, under the day on which it ended."""
    events = [happened(str(kind), n * 40_000) for n, kind in enumerate(EventKind)]
    rows = history.days(history.entries(list(reversed(events))))
    told = [s.event.id for day in rows for e in day.entries for s in e.steps]
    assert sorted(told) == [e.id for e in events]
    assert len({day.name for day in rows}) == len(rows)


# ---------------------------------------------------------------------------------------- problems


def test_problems_are_told_once_the_worst_first(store: Store) -> None:
    """A failed build is its environment's problem, not once more that of each instance."""
    problem_rows = attention(shown_of(store))
    assert sorted((p.target or p.name, p.label) for p in problem_rows) == [
        ("Environment/typo", "Mistake"),
        (f"environment/{name_of(8)}", "Build failed"),
        (f"instance/{name_of(4)}", "Degraded"),
        (f"instance/{name_of(3)}", "Rolled back"),
    ]
    failed = next(p for p in problem_rows if p.label == "Build failed")
    assert failed.build == builds(8)[0].key
    assert failed.command == f"groundcrew retry environment/{name_of(8)}"


def test_problems_of_repo_and_share_are_told_too(store: Store) -> None:
    """A revision that is held waits for a person; a share that is gone has failed."""
    held = Problem(Reason.PRUNE_HELD, "it lost 9 of 9 environments")
    gone = Problem(Reason.SHARE_MISSING, "/share has no marker")
    problem_rows = attention(shown_of(store, RepoState(source_problem=held, share_problem=gone)))
    told = {p.name: (p.group, p.message) for p in problem_rows}
    assert told["the environments repo"] == (Group.OUT_OF_SYNC, held.message)
    assert told["the share"] == (Group.FAILED, gone.message)


# ----------------------------------------------------------------------------------------- phrases


def test_packages_of_two_builds_are_compared() -> None:
    """Each package once, by name; without a build there are none."""
    new, old = builds(0)
    comparison = compare(old, new)
    assert [(r.name, str(r.change)) for r in comparison.rows] == [
        ("duckdb", "new"),
        ("pandas", "changed"),
        ("polars", "removed"),
        ("pyarrow", "same"),
    ]
    assert (len(comparison.different), comparison.same) == (3, 1)
    assert {r.change for r in compare(None, new).rows} == {"new"}
    assert len(compare(old, None).rows) == len(OLDER)
    assert compare(None, None).rows == ()
    assert len(compare(new, new).rows) == len(PACKAGES)


def test_a_runtime_is_said_in_words() -> None:
    """A key of another form is shown as it is."""
    assert phrases.runtime(RUNTIME.key) == "Airflow 3.0.6 · Python 3.11"
    assert phrases.runtime("pp310-linux-airflow3.0.6-0") == "pp310-linux-airflow3.0.6-0"
    assert phrases.runtime("other") == "other"


def test_a_time_is_that_of_the_state(store: Store) -> None:
    """An instance whose build failed has not been in that state since its last activation."""
    shown = shown_of(store)
    rolled_back, failed = shown.instances[name_of(3)], shown.instances[name_of(8)]
    assert phrases.since(rolled_back) == rolled_back.since
    assert phrases.since(failed) != failed.since
    assert instance(8).active_since
