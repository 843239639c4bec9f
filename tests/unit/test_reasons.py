"""Reasons: no literal of one in the code, none without a meaning, those of other versions kept."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator

import pytest
import yaml

from reconciler.core.events import EventKind
from reconciler.core.phases import ActivationPhase, BuildPhase, Health, Sync
from reconciler.core.reasons import Exit, Policy, Reason
from reconciler.core.states import Held, State
from scripts.docs import reasons
from tests.docs.blocks import ROOT

PACKAGES = ("gitsource", "metrics", "reconciler")
VOCABULARY = (ActivationPhase, BuildPhase, EventKind, Health, Held, State, Sync)
"""Enums with words of their own, some of which are reasons too."""

FOREIGN = {
    ("reconciler/cluster/connection.py", "AlreadyExists"),
    ("reconciler/cluster/diagnose.py", "Unschedulable"),
}
"""Words of Kubernetes that are spelled like a reason."""


SPELLED_ALIKE = {
    ("reconciler/airflow/kubernetes/release.py", "Failed"),
    *(
        ("reconciler/api/pages/groups.py", word)
        for word in ("Building", "Degraded", "Drifted", "Suspended", "Waiting")
    ),
    ("reconciler/api/pages/stages.py", "Active"),
    ("reconciler/api/contract.py", "Ready"),
    ("reconciler/airflow/kubernetes/rollout.py", "Ready"),
    ("reconciler/builder/executor/kubernetes/session.py", "Failed"),
    ("reconciler/builder/verify/dag_pods/runner.py", "Failed"),
    ("reconciler/cluster/diagnose.py", "Failed"),
}
"""Words of the pages, conditions, and phases of Kubernetes that are spelled like one of ours."""


def literals(source: str) -> Iterator[str]:
    """Yield the strings of a module that are spelled like a reason, and all that `.reason` meets.

    The members of the other enums are not among them.
    """
    tree = ast.parse(source)
    values = {reason.value for reason in Reason}
    others = {member.value for kind in VOCABULARY for member in kind}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if any(
                isinstance(one, ast.Attribute) and one.attr == "reason" for one in ast.walk(node)
            ):
                yield from strings(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Reason":
            yield from (text for one in node.args for text in strings(one))
        elif isinstance(node, ast.Constant) and node.value in values - others:
            yield str(node.value)


def strings(node: ast.AST) -> Iterator[str]:
    """Yield the string literals in an expression."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value:
            yield one.value


def test_no_kind_or_phase_is_written_as_a_literal() -> None:
    """Outside of the tables, each is a member; a type checker then knows each use."""
    values = {member.value for kind in (ActivationPhase, BuildPhase, EventKind) for member in kind}
    tables = {
        ROOT / f"reconciler/core/{name}.py" for name in ("events", "phases", "reasons", "states")
    }
    seen = {
        (str(path.relative_to(ROOT)), text)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path not in tables
        for text in strings(ast.parse(path.read_text()))
        if text in values
    }
    assert seen == SPELLED_ALIKE


def test_no_reason_is_written_as_a_literal() -> None:
    """Outside of the table, a reason is a member; a type checker then knows each use."""
    seen = {
        (str(path.relative_to(ROOT)), text)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != ROOT / "reconciler/core/reasons.py"
        for text in literals(path.read_text())
    }
    assert seen == FOREIGN


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise Stalled('ShareFull', 'words')", "ShareFull"),
        ("if error.reason == 'Unheard': pass", "Unheard"),
        ("if 'Unheard' in (error.reason, 'b'): pass", "Unheard"),
        ("reason = Reason('Unheard')", "Unheard"),
        ("TABLE = {'ShareFull': 1}", "ShareFull"),
    ],
)
def test_a_literal_is_found(source: str, text: str) -> None:
    """The check sees what it is for."""
    assert text in set(literals(source))


def test_every_reason_has_a_meaning_for_users() -> None:
    """The page about reasons has each, once."""
    listed = [reason for table in reasons.TABLES.values() for reason in table]
    assert sorted(listed) == sorted(Reason)
    page = (ROOT / "docs/reasons.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {str(r) for r in Reason}


def test_runbooks_name_no_reason_that_does_not_exist() -> None:
    """A word in CamelCase is a reason, a kind of event, a state or a phase."""
    known = {reason.value for reason in Reason}
    known |= {member.value for kind in VOCABULARY for member in kind}
    for path in [*sorted((ROOT / "docs/runbooks").glob("*.md")), ROOT / "docs/operations.md"]:
        named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", path.read_text()))
        assert named <= known, path.name


def test_the_alert_about_credentials_has_their_reasons() -> None:
    """The rule matches exactly the reasons whose policy says so."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
    (alert,) = (
        rule
        for group in rules["groups"]
        for rule in group["rules"]
        if rule.get("alert") == "GroundcrewCredentialRefused"
    )
    (pattern,) = re.findall(r'reason=~"([^"]+)"', alert["expr"])
    assert sorted(pattern.split("|")) == sorted(r for r in Reason if r.policy.credential)


def test_a_reason_of_another_version_keeps_its_text() -> None:
    """It has no policy, crosses processes, and equals itself; a number is no reason."""
    unknown = Reason("Unheard")
    assert (str(unknown), unknown.policy, unknown.advice) == ("Unheard", Policy(), "")
    assert pickle.loads(pickle.dumps(unknown)) == unknown == Reason("Unheard")
    assert Reason("ShareFull") is Reason.SHARE_FULL
    assert unknown not in set(Reason)
    with pytest.raises(ValueError, match="7"):
        Reason(7)  # type: ignore[arg-type]


def test_policies_agree_with_each_other() -> None:
    """A condition that is in order blames nothing, a login is blameless, values are names."""
    for reason in Reason:
        policy = reason.policy
        assert not (policy.ordinary and policy.blameless), reason
        assert policy.blameless or not policy.login, reason
        assert policy.exit in (None, Exit.MISUSE, Exit.UNREACHABLE), reason
        assert reason.name.replace("_", "").lower() == reason.value.lower()
        assert reason.value.isalpha(), reason
