"""Versions in the spellings of other tools, translated to that of PEP 440.

Every function takes time in proportion to its text's length.
"""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet

CARET = re.compile(r"[~^] ?v?[0-9]+(?:\.[0-9]+){0,5}")
ANY = ("", "*", "latest", "==*", "==latest", ">=latest", "@latest", "==")


def translated(text: str) -> str | None:
    """Return versions in the spelling of PEP 440, or None if their meaning is unclear."""
    if text in ANY:
        return ""
    if CARET.fullmatch(text):
        return caret(text)
    parts = re.split(r" ?, ?| (?=[<>=!~^])|(?<=[0-9])(?=[<>!~])", " ".join(text.split()))
    sound = []
    for part in parts[:20]:
        part = part.replace("=>", ">=").replace("=<", "<=")
        part = re.sub(r"^={1,2}\s*(?=[\^~<>!])", "", part.strip())
        if CARET.fullmatch(part) and not part.startswith("~="):
            sound.append(caret(part))
            continue
        part = re.sub(r"^=(?!=)\s*", "==", part)
        part = re.sub(r"^v?(?=[0-9])", "==", part)
        part = re.sub(r"^(==|>=|<=|!=|~=|>|<)\s*v?", r"\1", part)
        part = re.sub(r"^(>=|<=|>|<|~=)([0-9][0-9.]*?)\.[*x]$", r"\1\2", part)
        part = re.sub(r"\.x$", ".*", part)
        sound.append(part)
    wanted = ",".join(sound)
    try:
        SpecifierSet(wanted)
    except InvalidSpecifier:
        return None
    return wanted


def caret(text: str) -> str:
    """Return the range for a caret or tilde of Poetry and npm."""
    lowest = text[1:].strip().lstrip("v")
    parts = [int(part) for part in lowest.split(".")]
    if text.startswith("~"):
        kept = min(len(parts), 2)
    else:
        kept = next((n for n, part in enumerate(parts, 1) if part), len(parts))
    above = [*parts[: kept - 1], parts[kept - 1] + 1]
    return f">={lowest},<{'.'.join(map(str, above))}"
