"""Every command in the docs is run, or says why not and what checks it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import typer.main

from reconciler.cli.app import app
from tests.docs.blocks import ROOT, SHELL, Block, commands, every, pages

GENERATED = "docs/cli.md"  # synopses from the commands themselves; `make check` compares them
PROGRAMS = re.compile(
    r"^\s*\$?\s*(groundcrew|make|git|helm|kubectl|docker|pip|sed|curl|mkdir|apt-get) ", re.MULTILINE
)
INLINE = re.compile(r"`(groundcrew [^`\n]+|make [a-z][^`\n]*)`")
CHECKS = re.compile(r"(tests/[\w/]+\.py)::(\w+)|(\.ci/run)")


def shells() -> list[Block]:
    """Return every block of commands that people should type."""
    return [b for b in every() if b.language in SHELL and b.page != GENERATED]


@pytest.mark.parametrize("block", shells(), ids=str)
def test_each_is_run_or_says_why_not(block: Block) -> None:
    """It also names an existing test."""
    if block.mark == "run":
        return
    assert block.reason, f"{block}: put <!-- run --> or <!-- not run: why; test --> before it"
    why, _, checked = block.reason.rpartition("; ")
    assert why, f"{block}: say why"
    match = CHECKS.fullmatch(checked)
    assert match is not None, f"{block}: {checked} names no test"
    if match[1]:
        assert f"def {match[2]}(" in (ROOT / match[1]).read_text(), f"{block}: {checked}"


def test_each_page_with_marked_blocks_is_followed() -> None:
    """A block that says it is run is on a page that a test follows."""
    marked = {b.page.removeprefix("docs/") for b in shells() if b.mark == "run"}
    text = (ROOT / "tests" / "docs" / "test_run.py").read_text()
    assert [page for page in sorted(marked) if f'"{page}"' not in text] == []


def test_no_command_hides_in_another_block() -> None:
    """A block without a language, or of another, contains no commands."""
    others = [b for b in every() if b.language not in SHELL]
    assert [str(b) for b in others if PROGRAMS.search(b.text)] == []


# --------------------------------------------------------------------------- commands in sentences


def said() -> Iterator[tuple[str, str]]:
    """Yield (page, command) of every `groundcrew …` and `make …`, in blocks and in sentences."""
    for block in shells():
        for line in commands(block.text):
            for part in re.split(r"\s*(?:&&|\|\||[|;>])\s*", line):
                inner = re.search(r"(?:^|-- )((?:groundcrew|make) .*)", part)
                if inner:
                    yield block.page, inner[1]
    for page in pages():
        if page.relative_to(ROOT).as_posix() != GENERATED:
            for match in INLINE.finditer(page.read_text()):
                yield page.relative_to(ROOT).as_posix(), match[1]


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("page", "command"), sorted(set(said())))
def test_each_command_is_one(page: str, command: str) -> None:
    """Its name, its options and the number of its arguments are those of the program."""
    arguments = shlex.split(command.replace("…", "x"), comments=True)
    if arguments[0] == "make":
        assert arguments[1] in targets() | {"x"}, page
        return
    known = getattr(typer.main.get_command(app), "commands")  # noqa: B009 - of typer's own click
    name, *rest = arguments[1:]
    if name.startswith("-"):
        return  # an option of the program itself
    assert name in known, f"{page}: {command}"
    if rest:
        known[name].make_context(name, list(rest), resilient_parsing=True)
        options = {o for p in known[name].params for o in (*p.opts, *p.secondary_opts)}
        asked = {w.partition("=")[0] for w in rest if w.startswith("-")}
        assert asked <= options | {"-h", "--help"}, f"{page}: {command}"
