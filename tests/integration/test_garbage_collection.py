"""Garbage collection while builds are made again and instances are switched back to them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.builder.builder import Built
from reconciler.core.model import InstanceRecord, Records, StepResult
from reconciler.core.phases import ActivationPhase, Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.steps import record_step
from reconciler.core.world import Draft, World
from reconciler.daemon import effects as effects_module
from reconciler.daemon.effects import InstanceEffects
from reconciler.share.gc import Collected, collect_garbage
from reconciler.share.share import BaseName
from tests.fakes import fleet
from tests.harness.builder import Bench
from tests.harness.wheels import make_wheel

DAY = 86400.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as bench:
        make_wheel(bench.public.folder, "alpha")
        yield bench


def age(bench: Bench, *, seconds: float = DAY) -> None:
    """Make everything on the share look older."""
    then = time.time() - seconds
    for top in (bench.share.root / "builds", bench.share.root / "store" / "sha256"):
        for path in sorted(top.rglob("*"), reverse=True):
            os.utime(path, (then, then))


def old_build(bench: Bench) -> Built:
    """Return a verified build that nothing asks for any more."""
    recipe = bench.recipe("alpha")
    built = bench.build(recipe)
    bench.builder.verify(bench.job(), recipe, bench.runtime, bench.instance(), built.build_id)
    age(bench)
    return built


def collect(
    bench: Bench, during: Callable[[], None] = lambda: None, grace: float = 1.0
) -> Collected:
    """Collect, and call `during` once, between the decision and the first removal."""
    once = threading.Lock()

    def go_on() -> bool:
        if once.acquire(blocking=False):
            during()
        return True

    return collect_garbage(
        bench.share,
        roots=set(),
        held=(),
        now=time.time(),
        grace=grace,
        dry_run=False,
        go_on=go_on,
    )


def meanwhile(bench: Bench, act: Callable[[], None]) -> Collected:
    """Start `act` in the middle of a collection, and wait until both have ended."""
    thread = threading.Thread(target=act)

    def during() -> None:
        thread.start()
        thread.join(0.5)  # it runs as far as it can

    done = collect(bench, during)
    thread.join(300)
    assert not thread.is_alive()
    return done


def test_a_build_that_is_wanted_again_is_whole_after_a_collection(bench: Bench) -> None:
    """If its removal was decided, it is made again, and never found while it is removed."""
    old = old_build(bench)
    recipe, rebuilt = bench.recipe("alpha"), []
    done = meanwhile(bench, lambda: rebuilt.append(bench.build(recipe)))
    assert done.builds == (old.build_id,)
    assert rebuilt == [old]
    assert bench.share.build(old.build_id) is not None
    assert set(bench.paths(old)) == {"alpha.py"}


@pytest.mark.parametrize("grace", [0.0, 60.0])
def test_a_build_that_was_found_again_is_not_collected_next(bench: Bench, grace: float) -> None:
    """The records that the collection uses may be older: the build counts as new."""
    old_build(bench)
    built = bench.build(bench.recipe("alpha"))
    assert collect(bench, grace=grace).builds == ()
    assert bench.share.build(built.build_id) is not None


def test_what_was_just_put_stays_without_a_grace(bench: Bench) -> None:
    """With `gc.grace = 0` a build that is in no record yet is not collected."""
    built = bench.build(bench.recipe("alpha"))
    age(bench, seconds=5.0)
    assert collect(bench, grace=0.0) == Collected((), (), 0)
    assert bench.share.build(built.build_id) is not None


# ---------------------------------------------------------------------------------------- switching


def switching(bench: Bench, build_id: str) -> InstanceRecord:
    """Return an instance that is about to be pointed at a build."""
    moving = fleet.activation(0, Step.SWITCH, ActivationPhase.SWITCHING)
    activation = replace(moving, target=replace(moving.target, build=build_id))
    record = fleet.instance(0)
    return replace(record, runtime=bench.runtime, activation=activation)


def switch(bench: Bench, record: InstanceRecord, monkeypatch: pytest.MonkeyPatch) -> StepResult:
    """Perform the step as the daemon does."""
    results: list[StepResult] = []

    def take(_draft: Draft, _name: str, _step: Step, result: StepResult) -> None:
        results.append(result)

    monkeypatch.setattr(effects_module, "record_step", take)

    def unused(*_: object) -> None:
        raise AssertionError("a switch asks nobody")

    effects = InstanceEffects(bench.share, unused, unused)  # type: ignore[arg-type]
    effects.perform(record, time.time()).apply(None)  # type: ignore[arg-type]
    return results[0]


def test_a_switch_in_the_middle_of_a_collection_never_names_what_goes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the end, and then reports that the build does not exist."""
    old = old_build(bench)
    record, results = switching(bench, old.build_id), []
    meanwhile(bench, lambda: results.append(switch(bench, record, monkeypatch)))
    pointer = bench.share.pointer(record.name)
    named = [n.build for n in pointer.builds.values()] if pointer is not None else []
    assert [b for b in named if bench.share.build(b) is None] == []
    (result,) = results
    assert result.verdict is Verdict.FAILED
    assert result.problem is not None
    assert result.problem.reason == Reason.BUILD_MISSING


def test_a_switch_tells_what_the_pointer_left_out_and_that_is_retired(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds after a kill right after the pointer was written: the step is repeated."""
    record = switching(bench, old_build(bench).build_id)
    for number in range(4):
        bench.share.point(
            record.name,
            BaseName(f"base-{number}", "cp311-x", "3.3.2"),
            f"{number:016x}",
            ("scheduler",),
        )
    for _ in range(2):
        result = switch(bench, record, monkeypatch)
        assert (result.verdict, result.dropped) == (Verdict.OK, (f"{0:016x}",))
    draft = Draft(World(7.0, Records(instances={record.name: record})))
    record_step(draft, record.name, Step.SWITCH, result)
    moved = draft.instances[record.name]
    assert moved.activation is not None
    assert moved.activation.step is not Step.SWITCH
    assert moved.retired == (*record.retired, (f"{0:016x}", 7.0))


def test_a_switch_before_a_collection_keeps_its_build(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector sees the pointer that it leaves, whatever the records say."""
    old = old_build(bench)
    record = switching(bench, old.build_id)
    assert switch(bench, record, monkeypatch).verdict is Verdict.OK
    assert collect(bench).builds == ()
    assert bench.share.verified(old.build_id, bench.runtime.key)
