"""Every regular expression of the product takes linear time, whatever it is given."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from reconciler.isolation import Limits, Pool, TooExpensive
from tests.harness.regexes import FUNCTIONS, Regex, regexes, slowest, sources

ALL = regexes()


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Yield processes that can be killed, to end exponential patterns."""
    pool = Pool(Limits(cpu=10))
    yield pool
    pool.close()


@pytest.mark.parametrize("regex", ALL, ids=str)
def test_a_pattern_takes_linear_time(regex: Regex, pool: Pool) -> None:
    try:
        shown = pool.call(slowest, regex)
    except TooExpensive:
        shown = "it takes seconds for a few thousand characters"
    assert not shown, f"{regex.pattern!r}: {shown}"


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r"(a+)+$", "match"),
        (r"a*a*b", "match"),
        (r"\w+@", "search"),
        (r"[ \t]+$", "findall"),
        (r"exceed.*\blimit", "search"),
        (r"[^-]+-[^-]+\.whl", "search"),
    ],
)
def test_a_pattern_that_does_not_is_found(pattern: str, method: str) -> None:
    """Else the test above would say nothing."""
    pool = Pool(Limits(cpu=1))
    try:
        shown = pool.call(slowest, Regex("x.py:1", pattern, method))
    except TooExpensive:
        shown = "killed"
    finally:
        pool.close()
    assert shown


def test_no_use_of_the_module_is_overlooked() -> None:
    used = {
        node.attr
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and getattr(node.value, "id", "") == "re"
        and node.attr.islower()
    }
    assert used - FUNCTIONS == {"escape"}
    assert len(ALL) > 40


def test_re_is_used_by_its_name_and_models_use_the_linear_engine() -> None:
    """Patterns of models are run by an engine without backtracking, unless somebody asks for it."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("re", "regex"), f"{path}: import re, and write re.match"
            if isinstance(node, ast.Import):
                assert all(n.name != "re" or n.asname is None for n in node.names), path
            assert not (isinstance(node, ast.keyword) and node.arg == "regex_engine"), path
            assert not (isinstance(node, ast.Constant) and node.value == "regex_engine"), path
