"""Acts of the demo. Each of the six shows something and fails unless it really happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.events import ActivationActive, BuildFailed, EventKind, RolledBack
from reconciler.core.phases import BuildPhase, Step
from reconciler.core.reasons import Reason
from reconciler.demo.airflow import Bed
from reconciler.demo.observer import Watch, expect, fetch
from reconciler.demo.pace import Pace
from reconciler.demo.repo import DEFINITION, INSTANCE, MODULE, PACKAGE, Repo
from reconciler.demo.sink import Sink

HELLO = """\
import datetime
from acme_operators.operators import VersionOperator
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG

with DAG("hello", schedule=None, start_date=datetime.datetime(2024, 1, 1), catchup=False):
    VersionOperator(task_id="version")
"""

SLOW = """\
import datetime
import importlib
import time
try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task

with DAG("slow", schedule=None, start_date=datetime.datetime(2024, 1, 1), catchup=False):

    @task
    def work():
        import acme_operators
        print(f"SLOW TASK began on acme-operators {acme_operators.__version__}", flush=True)
        time.sleep(%d)
        late = importlib.import_module("acme_operators.late")
        print(f"SLOW TASK ended on acme-operators {late.VERSION}", flush=True)

    work()
"""

PLUGIN = '''\
"""Breaks the scheduler, and nothing else: what no check before the switch can see."""

import sys

if "scheduler" in sys.argv:
    sys.exit("acme plugin: no licence for this scheduler")

from airflow.plugins_manager import AirflowPlugin


class AcmePlugin(AirflowPlugin):
    name = "acme"
'''


@dataclass
class Stage:
    """Everything that the acts use."""

    bed: Bed
    repo: Repo
    watch: Watch
    sink: Sink
    pace: Pace
    metrics_url: str
    say: Callable[[str], None]
    slow_seconds: int = 20


def act_1(stage: Stage) -> None:
    """Commit v1: build, verify, activate; a task imports the in-repo package."""
    stage.repo.set_version("1.0.0")
    stage.repo.write(MODULE / "late.py", "from acme_operators import __version__ as VERSION\n")
    revision = stage.repo.commit("acme-operators 1.0.0")
    active = stage.watch.event(EventKind.ACTIVATION_ACTIVE, revision, timeout=240)
    assert isinstance(active.payload, ActivationActive)
    stage.say(f"active after {_seconds(active.payload.commit_to_active)} from the commit")
    stage.bed.wait_for_dag("hello", timeout=90)
    log = _run(stage, "hello", "version")
    expect("acme-operators 1.0.0" in log, "the task's log names acme-operators 1.0.0")
    stage.say("a task imported the in-repo operator: acme-operators 1.0.0")


def act_2(stage: Stage) -> None:
    """Commit v2 while a slow task runs: it ends on v1, the next run is on v2."""
    stage.bed.wait_for_dag("slow", timeout=60)
    stage.bed.unpause("slow")
    stage.bed.trigger("slow", "on-v1")
    stage.watch.until(
        "the slow task runs", lambda _: stage.bed.run_state("slow", "on-v1") == "running"
    )
    _wait_for_log(stage, "slow", "on-v1", "work", "began on acme-operators 1.0.0")
    stage.repo.set_version("2.0.0")
    revision = stage.repo.commit("acme-operators 2.0.0")
    stage.watch.event(EventKind.ACTIVATION_ACTIVE, revision, timeout=240)
    expect(stage.bed.wait_run("slow", "on-v1", timeout=60) == "success", "the slow run succeeded")
    log = stage.bed.task_log("slow", "on-v1", "work")
    expect("ended on acme-operators 1.0.0" in log, "the slow task ended on the build it began with")
    stage.say("the slow task began and ended on acme-operators 1.0.0")
    log = _run(stage, "hello", "version")
    expect("acme-operators 2.0.0" in log, "the next run's log names acme-operators 2.0.0")
    stage.say("the next run is on acme-operators 2.0.0")


def act_3(stage: Stage) -> None:
    """Commit v3, which fails at import: verification refuses it with file:line."""
    before = stage.watch.instance(INSTANCE)
    pointer = _pointer(stage)
    stage.repo.set_version("3.0.0")
    good = stage.repo.read(MODULE / "__init__.py")
    stage.repo.write(
        MODULE / "__init__.py", good + '\nraise RuntimeError("acme is not configured")\n'
    )
    revision = stage.repo.commit("acme-operators 3.0.0, which fails at import")
    failed = stage.watch.event(EventKind.BUILD_FAILED, revision)
    assert isinstance(failed.payload, BuildFailed)
    location = failed.payload.location
    line = len(good.splitlines()) + 2
    expect(failed.payload.phase == BuildPhase.VERIFYING, "it failed in verification")
    expect(
        location.startswith(f"{MODULE / '__init__.py'}:{line}"),
        f"the place is line {line}: {location}",
    )
    expect("acme is not configured" in failed.message, "the reason is in words")
    expect(
        stage.watch.instance(INSTANCE).current.build == before.current.build,
        "the instance is untouched",
    )
    expect(_pointer(stage) == pointer, "the pointer is untouched")
    stage.say(f"{location}: {failed.message.splitlines()[0]}")
    stage.repo.write(MODULE / "__init__.py", good)
    stage.repo.set_version("2.0.0")


def act_4(stage: Stage) -> None:
    """Commit v4, which conflicts with Airflow's pins: refused with the resolver's explanation."""
    before = stage.repo.read(DEFINITION)
    pointer = _pointer(stage)
    stage.repo.add_requirement("pydantic<2")
    revision = stage.repo.commit("ask for pydantic 1")
    failed = stage.watch.event(EventKind.BUILD_FAILED, revision)
    expect(
        failed.reason == Reason.RESOLUTION_CONFLICT, f"the reason is a conflict: {failed.reason}"
    )
    expect("pydantic" in failed.message, "the explanation names pydantic")
    assert isinstance(failed.payload, BuildFailed)
    location = failed.payload.location
    expect(location.startswith(str(DEFINITION)), f"the place is in the definition: {location}")
    expect(_pointer(stage) == pointer, "the pointer is untouched")
    stage.say(f"{location}: {' '.join(failed.message.split())[:300]}")
    stage.repo.write(DEFINITION, before)


def act_5(stage: Stage) -> None:
    """Commit v5, which fails only on the live instance: rolled back, quarantined, not retried."""
    good = stage.watch.instance(INSTANCE).current.build
    stage.repo.set_version("5.0.0")
    stage.repo.write(MODULE / "plugin.py", PLUGIN)
    project = stage.repo.read(PACKAGE / "pyproject.toml")
    stage.repo.write(
        PACKAGE / "pyproject.toml",
        f'{project}\n[project.entry-points."airflow.plugins"]\n'
        'acme = "acme_operators.plugin:AcmePlugin"\n',
    )
    revision = stage.repo.commit("acme-operators 5.0.0, with a plugin that stops the scheduler")
    back = stage.watch.event(EventKind.ROLLED_BACK, revision, timeout=600)
    record = stage.watch.instance(INSTANCE)
    assert isinstance(back.payload, RolledBack)
    bad = back.payload.switch.from_build
    expect(record.current.build == good, "the instance is back on the build of v2")
    expect(any(q.build_id == bad for q in record.quarantines), "v5 is quarantined there")
    expect(record.last is not None and record.last.step is Step.ROLLED_BACK, "it was rolled back")
    stage.say(f"{back.reason}: {back.message.splitlines()[0]}")
    started = _count(stage, EventKind.ACTIVATION_STARTED)
    time.sleep(3.0)
    stage.watch.look()
    expect(_count(stage, EventKind.ACTIVATION_STARTED) == started, "v5 is not tried again")
    expect(stage.watch.instance(INSTANCE).current.build == good, "the instance stays on v2")
    log = _run(stage, "hello", "version")
    expect("acme-operators 2.0.0" in log, "tasks run on v2 again")
    stage.say("back on acme-operators 2.0.0, which a task shows; 5.0.0 is quarantined")


def act_6(stage: Stage) -> None:
    """Show a summary: the messages to Slack and the metrics."""
    limit = stage.pace.limit(15)
    wanted = ("active", "failed", "rolled back")
    while not limit.over():
        texts = [t.lower() for t in stage.sink.texts()]
        if all(any(word in text for text in texts) for word in wanted):
            break
        time.sleep(0.5)
    texts = [t.lower() for t in stage.sink.texts()]
    for word in wanted:
        expect(any(word in text for text in texts), f"Slack was told of something {word}")
    for text in stage.sink.texts():
        stage.say(f"Slack: {text.splitlines()[0]}")
    page = fetch(stage.metrics_url)
    for line in (
        f'groundcrew_activation_total{{instance="{INSTANCE}",result="active"}} 2.0',
        f'groundcrew_activation_total{{instance="{INSTANCE}",result="rolled_back"}} 1.0',
        "groundcrew_quarantined_builds",
        "groundcrew_rollback_total",
    ):
        samples = [p for p in page.splitlines() if p.startswith(line)]
        expect(bool(samples), f"the metrics hold {line}")
        stage.say(f"metric: {samples[0]}")


Act = tuple[str, Callable[[Stage], None]]
"""Title of an act, and the function that plays it."""

ACTS: tuple[Act, ...] = (
    ("commit v1: build, verify, activate", act_1),
    ("commit v2 while a slow task runs on v1", act_2),
    ("commit v3, which fails at import", act_3),
    ("commit v4, in conflict with Airflow's own packages", act_4),
    ("commit v5, which breaks the live scheduler", act_5),
    ("what Slack and Prometheus were told", act_6),
)


def _run(stage: Stage, dag: str, task: str) -> str:
    """Run a DAG to its end and return its task's log."""
    run = f"run-{time.time():.0f}"
    stage.bed.unpause(dag)
    stage.bed.trigger(dag, run)
    state = stage.bed.wait_run(dag, run, timeout=90)
    log = stage.bed.task_log(dag, run, task)
    expect(state == "success", f"the run {run} of {dag} succeeded (it is {state}):\n{log[-2000:]}")
    return log


def _wait_for_log(stage: Stage, dag: str, run: str, task: str, words: str) -> None:
    def written(_: object) -> bool:
        return words in stage.bed.task_log(dag, run, task)

    stage.watch.until(f"the log of {dag} says {words!r}", written, timeout=60)


def _pointer(stage: Stage) -> bytes:
    return (Path(stage.bed.share) / "instances" / INSTANCE / "pointer.json").read_bytes()


def _count(stage: Stage, kind: EventKind) -> int:
    return sum(e.kind == kind for e in stage.watch.events)


def _seconds(value: float | None) -> str:
    return f"{value:.1f} s" if value is not None else "?"
