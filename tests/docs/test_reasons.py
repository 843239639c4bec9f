"""Every reason that can be shown is treated by a runbook."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from reconciler.core.events import EventKind
from reconciler.core.reasons import Reason
from tests.harness.regexes import ROOT, sources

RUNBOOKS = ROOT / "docs" / "runbooks"
CALLS = {"Stalled", "Retryable", "Waiting", "Problem", "Finding", "wrong", "_problem"}
ELSEWHERE = ("reconciler/demo/", "reconciler/doctor/")
"""Code whose reasons are shown by its own command alone, together with what to do."""


def reasons() -> set[str]:
    """Return the reasons that the product gives to an error, a problem or a finding."""
    trees = [
        tree for path, tree in sources() if not str(path.relative_to(ROOT)).startswith(ELSEWHERE)
    ]
    return {str(reason) for tree in trees for call in _calls(tree) for reason in _given(call)}


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _given(call: ast.Call) -> Iterator[Reason]:
    """Yield the reasons among the arguments of a call that makes an error or a finding."""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    values = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    values += call.args if name in CALLS else []
    for value in values:
        options = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        for option in options:
            if isinstance(option, ast.Attribute) and ast.unparse(option.value) == "Reason":
                yield Reason[option.attr]


def test_every_reason_has_a_runbook() -> None:
    """Whoever sees a reason finds what it means and what to do by searching for it."""
    written = "\n".join(page.read_text() for page in RUNBOOKS.glob("*.md"))
    given = reasons()
    assert len(given) > 100, "they are found in the source"
    missing = {reason for reason in given if f"`{reason}`" not in written}
    policies = {reason: Reason(reason).policy for reason in missing}
    assert {
        r for r, policy in policies.items() if not (policy.ordinary or policy.withdraws)
    } == set()


def test_no_runbook_treats_a_reason_that_is_never_given() -> None:
    """The page of reasons names nothing that the product no longer says."""
    page = (RUNBOOKS / "Reasons.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Za-z]+)`", row)}
    assert named <= {reason.value for reason in Reason} | {kind.value for kind in EventKind}
