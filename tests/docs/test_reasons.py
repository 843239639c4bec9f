"""Every reason that can be shown is treated by a runbook."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from tests.harness.regexes import ROOT, sources

RUNBOOKS = ROOT / "docs" / "runbooks"
REASON = re.compile(r"[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+")
CALLS = {"Stalled", "Retryable", "Waiting", "Problem", "Finding", "wrong", "_problem"}
ELSEWHERE = ("reconciler/demo/", "reconciler/doctor/")
"""Code whose reasons are shown by its own command alone, together with what to do."""


def reasons() -> set[str]:
    """Return the reasons that the product gives by name, or by a constant of any module."""
    trees = [
        tree for path, tree in sources() if not str(path.relative_to(ROOT)).startswith(ELSEWHERE)
    ]
    constants = {
        target.id: node.value.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and _is_reason(node.value.value)
    }
    given = {value for tree in trees for call in _calls(tree) for value in _given(call, constants)}
    return {str(value) for value in given}


def _is_reason(value: object) -> bool:
    return isinstance(value, str) and REASON.fullmatch(value) is not None


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _given(call: ast.Call, constants: Mapping[str, object]) -> Iterator[object]:
    """Yield the reasons among the arguments of a call that makes an error or a finding."""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    values = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    values += call.args if name in CALLS else []
    for value in values:
        options = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        for option in options:
            if isinstance(option, ast.Constant) and _is_reason(option.value):
                yield option.value
            elif isinstance(option, ast.Name) and option.id in constants:
                yield constants[option.id]


def test_every_reason_has_a_runbook() -> None:
    """Whoever sees a reason finds what it means and what to do by searching for it."""
    written = "\n".join(page.read_text() for page in RUNBOOKS.glob("*.md"))
    given = reasons()
    assert len(given) > 100, "they are found in the source"
    assert {reason for reason in given if f"`{reason}`" not in written} == set()


def test_no_runbook_treats_a_reason_that_is_never_given() -> None:
    """The page of reasons names nothing that the product no longer says."""
    page = (RUNBOOKS / "Reasons.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Za-z]+)`", row)}
    text = "\n".join(path.read_text() for path, _ in sources())
    assert {name for name in named if f'"{name}"' not in text} == set()
