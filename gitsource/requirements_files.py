"""Requirements files: their lines as pip reads them.

A file may hold what `requirements` may hold, include other files with -r, and name files of
constraints with -c. A requirement of one version may list with --hash the files that it may be.
Everything else is a mistake that says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from packaging.requirements import Requirement

from gitsource.requirement_lines import Kind, advice, in_repo, option_of, without_comment

FILE = re.compile(r"[A-Za-z0-9_./-]+\.(?:txt|in)")
HASHES = re.compile(r"(?: --hash[= ]sha256:[0-9a-f]{64})+")
HASH = re.compile(r"sha256:([0-9a-f]{64})")
HASHED = "write hashes as name==version --hash=sha256:DIGEST, each with its 64 digits"
LINES = 1000  # requirements, and files, of one file
FILES = 50  # of one environment
MISTAKES = 20  # of one file that are returned


class LineKind(Enum):
    """Use of a line."""

    REQUIREMENT = auto()
    FILE = auto()
    CONSTRAINTS = auto()
    MISTAKE = auto()


@dataclass(frozen=True, slots=True)
class Line:
    """Line of a requirements file, without its comment.

    `text` is a requirement, the path of a file, or what to write instead; `number` is that of the
    first line if several are joined. `hashes` are the SHA-256 of the files that it may be.
    """

    number: int
    kind: LineKind
    text: str
    hashes: tuple[str, ...] = ()


def is_requirements_file(item: str) -> bool:
    """Return True if an item of `requirements` names a file, by its ending."""
    return FILE.fullmatch(item) is not None


def requirements_of(text: str) -> Iterator[Line]:
    """Yield each line that is not empty, of a number of lines that is bounded."""
    count = mistakes = 0
    for number, joined in _joined(text):
        item = without_comment(joined)
        if not item:
            continue
        line = _line(number, item)
        count += 1
        if count > LINES:
            most = f"a file may have {LINES} requirements; put them into several environments"
            yield Line(number, LineKind.MISTAKE, most)
            return
        mistakes += line.kind is LineKind.MISTAKE
        if line.kind is not LineKind.MISTAKE or mistakes <= MISTAKES:
            yield line


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with those that a backslash at its end joins to it.

    A comment ends at the end of its own line, as pip has it.
    """
    begin, parts = 1, list[str]()
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        begin = begin if parts else number
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            parts.append(line[:-1])
            continue
        yield begin, "".join([*parts, f" {line}" if is_comment else line])
        parts = []
    if parts:
        yield begin, "".join(parts)


def _line(number: int, item: str) -> Line:
    option, value = option_of(item)
    kind = {"-r": LineKind.FILE, "-c": LineKind.CONSTRAINTS}.get(option)
    if kind is not None and "://" not in value and is_requirements_file(value):
        return Line(number, kind, value)
    begin = item.find(" --hash")
    requirement, options = (item[:begin].strip(), item[begin:]) if begin > 0 else (item, "")
    answer = advice(requirement, Kind.REQUIREMENT)
    if not answer and options and not _is_hashed(requirement, options):
        answer = HASHED
    if answer:
        return Line(number, LineKind.MISTAKE, answer)
    return Line(number, LineKind.REQUIREMENT, requirement, tuple(HASH.findall(options)))


def _is_hashed(requirement: str, options: str) -> bool:
    """Return True if the options are hashes, and the requirement leaves one version to choose."""
    if in_repo(requirement) is not None or not HASHES.fullmatch(f" {' '.join(options.split())}"):
        return False
    versions = Requirement(requirement).specifier
    return any(v.operator in ("==", "===") and not v.version.endswith(".*") for v in versions)
