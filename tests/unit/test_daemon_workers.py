"""Workers: one effect per key, each reporting once, and stoppable."""

from __future__ import annotations

import threading
import time

from reconciler.daemon.workers import Workers


def test_two_effects_of_one_key_never_run_at_once() -> None:
    gate, woken = threading.Event(), threading.Event()
    workers: Workers[str] = Workers(woken.set, {"p": 2})

    def effect(_: threading.Event) -> str:
        gate.wait(10)
        return "done"

    assert workers.start("p", ("build", "a"), effect)
    assert not workers.start("p", ("build", "a"), effect)
    assert workers.start("p", ("build", "b"), effect)
    gate.set()
    assert workers.stop(lambda _: False, 10)
    assert workers.reports() == ["done", "done"]
    assert woken.is_set()


def test_an_effect_is_not_done_again_before_its_report_is_taken() -> None:
    """A decision made meanwhile is based on records without its outcome."""
    ended = threading.Event()
    workers: Workers[str] = Workers(ended.set, {"p": 2})
    assert workers.start("p", ("build", "a"), lambda _: "done")
    assert ended.wait(10)
    assert not workers.busy()
    assert not workers.start("p", ("build", "a"), lambda _: "again")
    assert workers.reports() == ["done"]
    assert workers.start("p", ("build", "a"), lambda _: "next")
    assert workers.stop(lambda _: False, 10)
    assert workers.reports() == ["next"]


def test_a_cancelled_effect_is_told_and_others_are_not() -> None:
    workers: Workers[str] = Workers(lambda: None, {"p": 2})
    started = threading.Barrier(3)

    def effect(cancelled: threading.Event) -> str:
        started.wait(10)
        return "cancelled" if cancelled.wait(0.3) else "ended"

    workers.start("p", ("build", "a"), effect)
    workers.start("p", ("perform", "b"), effect)
    started.wait(10)
    assert workers.busy() == {("build", "a"), ("perform", "b")}
    assert workers.stop(lambda key: key[0] == "build", 10)
    assert sorted(workers.reports()) == ["cancelled", "ended"]


def test_an_effect_that_raises_frees_its_key_and_reports_nothing() -> None:
    workers: Workers[str] = Workers(lambda: None, {"p": 1})

    def effect(_: threading.Event) -> str:
        raise ValueError("a bug")

    workers.start("p", ("poll", ""), effect)
    deadline = time.monotonic() + 10
    while workers.busy() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not workers.busy()
    assert workers.reports() == []
    workers.stop(lambda _: True, 1)
