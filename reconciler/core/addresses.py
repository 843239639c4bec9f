"""Addresses in texts that people see: without what may be a password in them."""

from __future__ import annotations

import re

USER_INFO = re.compile(
    r"(?i)(ssh)?://([^\s/?#'\"]*|[^\s/?#'\":]*:(?!\d*[/?#])(?:(?!://)[^\s'\"]){0,4096})@"
)
"""What is before the host of an address; also where a password has a slash in it.

It takes time in proportion to the text, whatever a build prints.
"""


def shown(words: str) -> str:
    """Words with the user info of every address in them masked; an ssh user alone is no secret."""

    def masked(found: re.Match[str]) -> str:
        scheme, user = found.groups()
        return found[0] if scheme and ":" not in user else f"{scheme or ''}://***@"

    return USER_INFO.sub(masked, words)
