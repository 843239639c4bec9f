"""Check that names and docstrings are plain English; `make check` runs it.

`python -m scripts.prose` prints each finding as `file:line: rule: message` and ends with 1. It
finds docstrings that open like a question, module names that are gerunds or metaphors, local
variables that do not say what they hold, and code that is kept from the formatter. In docs/ it
looks at headings and at cells of tables.

Files that are older than the check are listed in `prose-exempt.txt`, with the rules that they may
break. An entry that is no longer needed is a finding too, so that the list only gets shorter.
`--write-exemptions` removes such entries; it never adds any.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXEMPTIONS = Path(__file__).with_name("prose-exempt.txt")
PACKAGES = ("gitsource", "reconciler", "metrics", "deploy", "scripts", "benchmarks", "tests")

QUESTION_OPENINGS = re.compile(
    r"(What|Whom?|Whose|Where|Which|How|Why|Is|Are|Was|Were|Does|Did|Has|Have|Had|Can|Could|May"
    r"|Might|Must|Should|Would|Will|Shall)\b"
)
BANNED_LOCALS = frozenset({"found", "words", "place"})
BANNED_MODULES = frozenset(
    {"rooms", "people", "errands", "standing", "carry", "turns", "shelf", "tally", "reach", "focus"}
)
GERUND = re.compile(r"[a-z]{3,}ing")
NOUNS_IN_ING = frozenset(
    {"formatting", "monitoring", "outgoing", "string", "timing", "wiring"}
)  # and adjectives
UNFORMATTED = re.compile(r"#\s*fmt: (skip|off)\b")
QUESTION_HEADINGS = re.compile(r"(Whom?|Whose)\b|(Is|Are|Does|Has|Can|May) .*[^?]$")


@dataclass(frozen=True, slots=True)
class Finding:
    """A place that does not follow the rules; `file` is relative to the repository."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


def check_module(file: str, text: str) -> Iterator[Finding]:
    """Yield the findings in a Python module. Raises SyntaxError."""
    yield from _check_name(file)
    for number, line in enumerate(text.splitlines(), start=1):
        if UNFORMATTED.search(line):
            yield Finding(file, number, "format", "leave the layout to the formatter")
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _check_docstring(file, node)
            case ast.Name(id=name, ctx=ast.Store()) if name in BANNED_LOCALS:
                message = f"the variable `{name}` does not say what it holds"
                yield Finding(file, node.lineno, "local", message)


def check_page(file: str, text: str) -> Iterator[Finding]:
    """Yield the findings in a page of Markdown: headings and cells that open with a pronoun."""
    in_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("```"):
            in_code = not in_code
        if in_code:
            continue
        parts = line.split("|") if line.startswith("|") else []
        if line.startswith("#"):
            parts = [line.lstrip("#")]
        for part in (part.strip() for part in parts):
            if QUESTION_HEADINGS.match(part):
                message = f"`{part[:60]}` opens like a question without being one"
                yield Finding(file, number, "heading", message)


def _check_name(file: str) -> Iterator[Finding]:
    name = Path(file).stem
    last = name.rpartition("_")[2]
    if name in BANNED_MODULES:
        yield Finding(file, 1, "module", f"`{name}` is a metaphor: name what the module holds")
    elif GERUND.fullmatch(last) and last not in NOUNS_IN_ING:
        yield Finding(file, 1, "module", f"`{name}` is a gerund: name the module with a noun")


def _check_docstring(
    file: str, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
) -> Iterator[Finding]:
    docstring = ast.get_docstring(node)
    if docstring is None:
        return
    line = node.body[0].lineno
    first = docstring.split("\n\n")[0].strip()
    if opening := QUESTION_OPENINGS.match(first):
        message = f"the docstring opens with `{opening.group()}`: use a verb, or a noun for a class"
        yield Finding(file, line, "docstring", message)
    elif first.endswith("?"):
        yield Finding(file, line, "docstring", "the docstring is a question: say what it returns")


def judge(
    findings: Iterable[Finding], exemptions: Mapping[str, frozenset[str]]
) -> tuple[list[Finding], dict[str, frozenset[str]]]:
    """Return the findings that no exemption covers, and the exemptions that are still needed."""
    needed: dict[str, set[str]] = defaultdict(set)
    open_findings = []
    for finding in findings:
        if finding.rule in exemptions.get(finding.file, frozenset()):
            needed[finding.file].add(finding.rule)
        else:
            open_findings.append(finding)
    return open_findings, {file: frozenset(rules) for file, rules in needed.items()}


def parse_exemptions(text: str) -> dict[str, frozenset[str]]:
    """Return the rules that each file may break, from lines such as `a/b.py: local docstring`."""
    exemptions = {}
    for line in text.splitlines():
        file, _, rules = line.partition(":")
        if rules:
            exemptions[file] = frozenset(rules.split())
    return exemptions


def format_exemptions(exemptions: Mapping[str, frozenset[str]]) -> str:
    """Return the text that `parse_exemptions` reads."""
    return "".join(f"{file}: {' '.join(sorted(exemptions[file]))}\n" for file in sorted(exemptions))


def _all_findings(root: Path) -> Iterator[Finding]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            yield from check_module(path.relative_to(root).as_posix(), path.read_text())
    for path in sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")]):
        yield from check_page(path.relative_to(root).as_posix(), path.read_text())


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the repository and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.prose", description=__doc__)
    parser.add_argument("--write-exemptions", action="store_true", help="drop unneeded exemptions")
    options = parser.parse_args(arguments)
    exemptions = parse_exemptions(EXEMPTIONS.read_text())
    findings, needed = judge(_all_findings(ROOT), exemptions)
    if options.write_exemptions:
        EXEMPTIONS.write_text(format_exemptions(needed))
        exemptions = needed
    lines = [str(finding) for finding in findings]
    for file, rules in exemptions.items():
        if unneeded := rules - needed.get(file, frozenset()):
            lines.append(
                f"{file}: exempt without need from {' '.join(sorted(unneeded))}: "
                "run `python -m scripts.prose --write-exemptions`"
            )
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
