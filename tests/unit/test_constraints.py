"""Constraint files: the contents of a line, read in linear time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gitsource.constraints import constraints_of
from gitsource.requirement_lines import LINE_LIMIT


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("numpy<2  # pinned", ["numpy<2"]),
        ("numpy<2\t# pinned", ["numpy<2"]),
        ("# numpy<2", []),
        ("   ", []),
        ("", []),
        ("numpy<2", ["numpy<2"]),
    ],
)
def test_a_comment_begins_at_the_start_or_after_a_space(line: str, wanted: list[str]) -> None:
    assert [text for _, text, _ in constraints_of(line)] == wanted


def test_a_number_sign_within_a_word_is_no_comment() -> None:
    ((_, parsed, wrong),) = constraints_of("a#b")
    assert parsed == ""
    assert wrong


def test_a_line_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    ((number, parsed, wrong),) = constraints_of("a" * (LINE_LIMIT + 1))
    assert (number, parsed) == (1, "")
    assert str(LINE_LIMIT) in wrong


ENDLESS = {"spaces": " " * 1_000_000 + "x", "signs": "#" * 1_000_000, "words": "a#" * 500_000}
CPU_LIMIT = 30  # seconds; linear time needs less than one, quadratic time needs hours


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_long_line_costs_no_more_than_its_length(kind: str, tmp_path: Path) -> None:
    """Run in a process that the kernel ends at its limit: one file once took hours."""
    file = tmp_path / "constraints.txt"
    file.write_text(ENDLESS[kind])
    code = (
        "import pathlib, resource\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, ({CPU_LIMIT}, {CPU_LIMIT}))\n"
        "from gitsource.constraints import constraints_of\n"
        f"print(len(list(constraints_of(pathlib.Path({str(file)!r}).read_text()))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() in ("0", "1")
