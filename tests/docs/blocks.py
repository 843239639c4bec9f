"""Fenced blocks of the docs, and the marks on them.

A shell block has a comment in front of it, which readers do not see: `<!-- run -->`, and the tests
run it; or `<!-- not run: why; what checks it instead -->`. A block with `title="path"` is written
to that path before the following block is run.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = {"sh", "shell", "bash", "console"}
FENCE = re.compile(r"^( *)(`{3,})(\S*)(.*)\n((?:.*\n)*?)\1\2 *$", re.MULTILINE)
TITLE = re.compile(r'title="([^"]+)"')
MARK = re.compile(r"<!-- ((?:(?!-->).)*) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """Fenced block; `line` counts from 1, `mark` is the comment in front of it."""

    page: str
    line: int
    language: str
    title: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def reason(self) -> str:
        """Return why it is not run, and what checks it; "" if it is run or has no mark."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""


def pages() -> list[Path]:
    """Return every page that people read."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "environments.example" / "README.md", *docs]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = page.read_text()
    page_blocks = []
    for match in FENCE.finditer(text):
        title, mark = TITLE.search(match[4]), MARK.search(text[: match.start()])
        page_blocks.append(
            Block(
                page.relative_to(ROOT).as_posix(),
                text.count("\n", 0, match.start()) + 1,
                match[3],
                title[1] if title else "",
                " ".join(mark[1].split()) if mark else "",
                textwrap.dedent(match[5]),
            )
        )
    return page_blocks


def every() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def commands(text: str) -> list[str]:
    """Return the lines of a shell text, with continuation lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]
