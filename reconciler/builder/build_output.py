"""Output of failed builds: the lines that say why, among all that compilers and backends print."""

from __future__ import annotations

import re

LINES = 5000  # newest lines that are looked at
LINE_LIMIT = 400  # characters of a line
TAIL = 8  # last lines that a message shows
CAUSES = 4  # lines of the cause that a message shows
DIAGNOSTIC = re.compile(
    r"(?:fatal )?error: |\berror\[E|: not found$|command not found|cannot find -l"
    r"|undefined reference|No such file or directory|^CMake Error|: ERROR: |not find"
    r"|is not installed"
)
WRAPPER = re.compile(r"^(?:error: (?:Failed|command|subprocess)|cause: |hint: |\[std|× |Traceback)")
EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]*(?:Error|Exception|Exit|Failure)\b: ?")


def causes(output: str) -> str:
    """Return the lines of a build's output that say why it failed, and the last ones."""
    lines = [line.strip()[:LINE_LIMIT] for line in output.strip().splitlines()[-LINES:]]
    lines = [line for line in lines if line and not WRAPPER.match(line)]
    reasons = [n for n, line in enumerate(lines) if _says_why(line)]
    reasons += [n + 1 for n in reasons if EXCEPTION.match(lines[n]) and n + 1 < len(lines)]
    shown = list(dict.fromkeys(lines[n] for n in sorted(reasons)))[:CAUSES]
    tail = [line for line in lines[-TAIL:] if line not in shown]
    return "\n".join([*shown, *(["…"] if shown and tail else []), *tail])


def _says_why(line: str) -> bool:
    return DIAGNOSTIC.search(line) is not None or EXCEPTION.match(line) is not None
