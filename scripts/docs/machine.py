"""Generator of docs/explanation/activation.md and its diagram, from the state machine.

What a step does and what a decision is for are told here; steps, phases and transitions come from
`reconciler.core.machine`.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.machine import FINAL, TABLE, Cause, Decision
from reconciler.core.phases import PHASE_OF, Step, Verdict

EFFECTS = {
    Step.OBSERVE: "reads pools, import errors and active DAGs; changes nothing",
    Step.PAUSE: "sets the slots of all pools to 0, so that no task starts",
    Step.DRAIN: "waits until no task runs",
    Step.SWITCH: "moves the pointer to the new build",
    Step.RESTART: "restarts the components that load a build",
    Step.PROBE: "waits until the instance is healthy and proves what it has loaded",
    Step.RELEASE: "restores the slots of the pools: tasks start",
    Step.WATCH: "watches the instance while tasks run on the new build",
    Step.WITHDRAW: "moves the pointer back; nothing is restarted",
    Step.RELEASE_ABORT: "restores the slots of the pools",
    Step.PAUSE_BACK: "sets the slots of all pools to 0 again",
    Step.DRAIN_BACK: "waits until no task runs on the new build",
    Step.SWITCH_SERVERS_BACK: "moves the pointer back, as Airflow's API does not answer",
    Step.RESTART_SERVERS_BACK: "restarts the servers, which run no tasks",
    Step.SWITCH_BACK: "moves the pointer to the old build",
    Step.RESTART_BACK: "restarts the components on the old build",
    Step.PROBE_BACK: "waits until the instance is healthy on the old build",
    Step.RELEASE_BACK: "restores the slots of the pools",
    Step.DEGRADED: "nothing: neither build works; waits for the next attempt",
    Step.DONE: "the new build is active",
    Step.ROLLED_BACK: "the old build is active; the new one is in quarantine if it is to blame",
    Step.ABORTED: "nothing has changed",
}
DECISIONS = {
    Decision.START: "the instance should have another build, and nothing prevents its activation",
    Decision.REDIRECT: "it should have yet another build: a new activation goes on at this step",
    Decision.GIVE_UP: "it should stay as it is, is suspended, or is defined to be another Airflow",
    Decision.WITHDRAW: "its base is being changed, so no process will load the new build",
    Decision.ABORT: "an operator turns it back",
    Decision.ACCEPT: "an operator rolls it back during the watch, which ends as if it were over",
    Decision.GO_BACK: "the time of the next attempt to go back has come",
    Decision.GO_FORWARD: "another build is ready, or the same one may work now",
}


def page() -> str:
    """Return the page."""
    decisions = "\n".join(f"| `{one}` | {DECISIONS[one]} |" for one in Decision)
    steps = "\n".join(_row(step) for step in EFFECTS)
    return f"""# The steps of an activation

<!-- Written by `make generate` from reconciler/core/machine.py. -->

An activation moves an instance from one build to another, or back. It is always at one of these
steps, each of which can be repeated: after a crash, the daemon carries out the recorded step again.
The theory is at the top of `reconciler/core/machine.py`.

![Steps and transitions](../img/activation.svg)

Solid lines: the step has succeeded. Dashed lines: it has failed for good. Dotted lines: the daemon
has decided it, without an outcome. A step with no line for an outcome is tried again.

| step | phase | what it does | succeeded | failed | decided |
|---|---|---|---|---|---|
{steps}

| decision | why |
|---|---|
{decisions}
"""


def _row(step: Step) -> str:
    row = TABLE[step]
    decided = ", ".join(f"{c}: `{to}`" for c, to in row.items() if isinstance(c, Decision))
    outcomes = [f"`{row[v]}`" if v in row else "" for v in (Verdict.OK, Verdict.FAILED)]
    return f"| `{step}` | {PHASE_OF[step]} | {EFFECTS[step]} | {' | '.join((*outcomes, decided))} |"


# ------------------------------------------------------------------------------------- the diagram

COLUMNS: tuple[tuple[Step | None, ...], ...] = (
    (Step.ABORTED, None, Step.RELEASE_ABORT, None, None, Step.WITHDRAW),
    (
        Step.OBSERVE,
        Step.PAUSE,
        Step.DRAIN,
        Step.SWITCH,
        Step.RESTART,
        Step.PROBE,
        Step.RELEASE,
        Step.WATCH,
        Step.DONE,
    ),
    (
        Step.ROLLED_BACK,
        Step.RELEASE_BACK,
        Step.PROBE_BACK,
        Step.RESTART_BACK,
        Step.SWITCH_BACK,
        None,
        Step.DRAIN_BACK,
        Step.PAUSE_BACK,
    ),
    (
        None,
        None,
        None,
        None,
        None,
        Step.DEGRADED,
        None,
        Step.SWITCH_SERVERS_BACK,
        Step.RESTART_SERVERS_BACK,
    ),
)
CELLS = {step: (x, y) for x, column in enumerate(COLUMNS) for y, step in enumerate(column) if step}
WIDTH, HEIGHT = 170, 34  # of a box
ACROSS, DOWN = 250, 70  # from one box to the next
MARGIN = 30
STYLE = """
rect { fill: #eceff1; stroke: #546e7a } rect.end { fill: #cfd8dc; stroke-width: 3 }
text { font: 14px sans-serif; text-anchor: middle; fill: #212121 }
path { fill: none; stroke: #37474f; stroke-width: 1.5; marker-end: url(#arrow) }
path.failed { stroke: #b71c1c; stroke-dasharray: 7 4 }
path.decided { stroke: #1565c0; stroke-dasharray: 2 4 }
"""


def diagram() -> str:
    """Return the diagram of all steps and transitions, as SVG."""
    width = len(COLUMNS) * ACROSS - ACROSS + WIDTH + 2 * MARGIN
    height = max(map(len, COLUMNS)) * DOWN - DOWN + HEIGHT + 2 * MARGIN
    lines = "\n".join(_lines())
    boxes = "\n".join(_box(step) for step in CELLS)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<title>Steps of an activation, and its transitions</title>
<style>{STYLE}</style>
<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"
orient="auto"><path d="M0 0L10 5L0 10z" style="marker-end: none; fill: #37474f"/></marker></defs>
<rect width="{width}" height="{height}" style="fill: #fff; stroke: none"/>
{lines}
{boxes}
</svg>
"""


def _corner(step: Step) -> tuple[int, int]:
    x, y = CELLS[step]
    return MARGIN + x * ACROSS, MARGIN + y * DOWN


def _box(step: Step) -> str:
    x, y = _corner(step)
    kind = ' class="end"' if step in FINAL else ""
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"{kind}/>'
        f'<text x="{x + WIDTH // 2}" y="{y + HEIGHT // 2 + 5}">{step}</text>'
    )


def _lines() -> Iterator[str]:
    for step, row in TABLE.items():
        for cause, following in row.items():
            if step is not None and following is not step:
                yield f'<path class="{_kind(cause)}" d="{_curve(step, following, cause)}"/>'


def _kind(cause: Cause) -> str:
    return "decided" if isinstance(cause, Decision) else str(cause)


def _curve(step: Step, following: Step, cause: Cause) -> str:
    """Return a curve from one box to another; lines for other causes begin beside each other."""
    (x, y), (to_x, to_y) = _corner(step), _corner(following)
    aside = {"ok": 0, "failed": 7, "decided": -12}[_kind(cause)]
    middle = HEIGHT // 2 + aside
    if x != to_x:
        right = to_x > x
        if cause is Verdict.FAILED and not right:  # beside a line that leads the other way
            middle = HEIGHT // 2 - aside
        begin, end = x + WIDTH * right, to_x + WIDTH * (not right)
        pull = (ACROSS - WIDTH) * (1 if right else -1)
        return (
            f"M{begin} {y + middle}C{begin + pull} {y + middle} {end - pull} {to_y + middle} "
            f"{end} {to_y + middle}"
        )
    if abs(to_y - y) == DOWN:
        begin, end = (y + HEIGHT, to_y) if to_y > y else (y, to_y + HEIGHT)
        return f"M{x + WIDTH // 2 + 4 * aside} {begin}V{end}"
    bend = x + WIDTH + 50 + 2 * aside
    return f"M{x + WIDTH} {y + middle}C{bend} {y} {bend} {to_y} {x + WIDTH} {to_y + middle}"
