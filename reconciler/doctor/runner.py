"""Parallel runner for checks; one that hangs, such as on a dead mount, delays no other."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reconciler.core.errors import GroundcrewError
from reconciler.core.reasons import Reason
from reconciler.doctor.findings import Check, Finding, Level, failed

SIDE_BY_SIDE = 16


@dataclass(frozen=True, slots=True)
class Task:
    """Check of one object, and the seconds that it may take."""

    check: Check
    object: str
    look: Callable[[], Iterable[Finding]]
    seconds: float = 30.0


def examine(tasks: Sequence[Task], ended: Callable[[Task], None] = lambda _: None) -> list[Finding]:
    """Run all tasks and return their findings in order; `ended` is called for each task."""
    waiting = deque(enumerate(tasks))
    running: dict[int, float] = {}  # number → deadline
    answers: queue.Queue[tuple[int, list[Finding]]] = queue.Queue()
    by_number: dict[int, list[Finding]] = {}
    while waiting or running:
        while waiting and len(running) < SIDE_BY_SIDE:
            number, task = waiting.popleft()
            running[number] = time.monotonic() + task.seconds
            threading.Thread(target=_run, args=(number, task, answers), daemon=True).start()
        try:
            left = min(running.values()) - time.monotonic()
            number, findings = answers.get(timeout=max(0.0, left))
        except queue.Empty:
            number = min(running, key=running.__getitem__)
            findings = [_silent(tasks[number])]
        if running.pop(number, None) is None:
            continue  # an answer that came too late
        by_number[number] = findings
        ended(tasks[number])
    return [finding for number in sorted(by_number) for finding in by_number[number]]


def _run(number: int, task: Task, answers: queue.Queue[tuple[int, list[Finding]]]) -> None:
    findings: list[Finding] = []
    try:
        findings.extend(task.look())
    except GroundcrewError as error:
        findings.append(failed(task.check, task.object, error))
    except OSError as error:
        message = f"{error.filename or task.object}: {error.strerror or type(error).__name__}"
        mend = "see the message; the daemon's user must be able to do this"
        findings.append(
            Finding(task.check, task.object, Level.UNREACHABLE, Reason.SYSTEM_ERROR, message, mend)
        )
    except Exception as error:  # its text may contain a secret: only its name is kept
        message = f"this check itself has failed: {type(error).__name__}"
        mend = "report it with what `groundcrew --version` says"
        findings.append(
            Finding(task.check, task.object, Level.WRONG, Reason.CHECK_FAILED, message, mend)
        )
    answers.put((number, findings))


def _silent(task: Task) -> Finding:
    return Finding(
        task.check,
        task.object,
        Level.UNREACHABLE,
        Reason.TIMED_OUT,
        f"no answer within {task.seconds:.0f} s",
        "see that it runs, and that the daemon's machine reaches it",
    )
