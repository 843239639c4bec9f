"""The state machine of activations: its table, and that nothing else changes a step."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from reconciler.core import machine
from reconciler.core.machine import FINAL, SWITCHED, TABLE, UNTOUCHED, Decision, Target
from reconciler.core.model import BARE, Deployment, InstanceRecord
from reconciler.core.phases import Step, Trigger, Verdict
from scripts.docs import machine as pages
from tests.fakes.definitions import instance

CORE = Path(machine.__file__).parent
TARGET = Target(Deployment("b1", "r1", "cp311", ("scheduler",)), Trigger.COMMIT, "rev")
RECORD = InstanceRecord("dev", "red", instance("dev"))


def reached(step: Step | None) -> set[Step]:
    """Return the steps that are reached from one, by any causes."""
    seen: set[Step] = set()
    new = set(TABLE[step].values())
    while new - seen:
        seen |= new
        new = {following for one in new for following in TABLE[one].values()}
    return seen


def test_each_step_is_in_the_table_and_reached_from_the_start() -> None:
    assert reached(None) == set(Step) == TABLE.keys() - {None}


@pytest.mark.parametrize("step", sorted(set(Step) - FINAL))
def test_each_step_leads_to_an_end(step: Step) -> None:
    assert reached(step) & FINAL


def test_before_the_switch_nothing_is_restarted_and_after_it_nothing_is_given_up() -> None:
    """The steps of the two halves follow from the decisions that may end them."""
    assert {Step.OBSERVE, Step.PAUSE, Step.DRAIN} == UNTOUCHED
    assert {Step.SWITCH, Step.RESTART, Step.PROBE, Step.RELEASE, Step.WATCH} == SWITCHED
    assert {Step.DONE, Step.ROLLED_BACK, Step.ABORTED} == FINAL


def test_a_step_is_left_only_as_the_table_says() -> None:
    """A decision that is not meant for a step is a mistake in the code, and changes nothing."""
    started = machine.started(RECORD, TARGET, 5.0)
    assert (started.step, started.phase, started.phases) == (
        Step.OBSERVE,
        "Draining",
        (("Draining", 5.0),),
    )
    for cause in (Decision.WITHDRAW, Decision.GO_BACK, Verdict.NOT_YET):
        with pytest.raises(KeyError):
            machine.moved(started, cause, 6.0)
    assert machine.moved(started, Verdict.OK, 6.0).step is Step.PAUSE


def test_a_deployment_of_the_bare_base_has_neither_recipe_nor_runtime() -> None:
    with pytest.raises(ValueError, match="the bare base has neither"):
        Deployment(recipe="r1")
    with pytest.raises(ValueError, match="the bare base has neither"):
        Deployment(runtime="cp311")
    assert str(BARE) == "the bare base"


def changes_a_step(node: ast.AST) -> bool:
    """Return True if code makes an activation, or copies a record with another step."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    named = {keyword.arg for keyword in node.keywords}
    return node.func.id == "Activation" or (node.func.id == "replace" and "step" in named)


def test_only_the_machine_changes_a_step() -> None:
    changing = {
        path.name
        for path in sorted(CORE.parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if changes_a_step(node)
    }
    assert changing == {"machine.py"}


def test_the_page_tells_each_step_and_each_decision() -> None:
    assert set(pages.EFFECTS) == set(pages.CELLS) == set(Step)
    assert set(pages.DECISIONS) == set(Decision)
    drawn = pages.diagram().count("<path class=")
    redirects = sum(Decision.REDIRECT in row for row in TABLE.values())
    start = len(TABLE[None])
    assert drawn == sum(map(len, TABLE.values())) - redirects - start
