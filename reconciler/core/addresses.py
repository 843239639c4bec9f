"""Masking of credentials in addresses within texts that users see."""

from __future__ import annotations

import re

USER_INFO = re.compile(
    r"(?i)(ssh)?://([^\s/?#'\"]*|[^\s/?#'\":]*:(?!\d*[/?#])(?:(?!://)[^\s'\"]){0,4096})@"
)
"""Pattern of the part before an address's host; also with a slash in the password.

It takes linear time, whatever a build prints.
"""


def shown(words: str) -> str:
    """Return a text with the credentials in every address masked; a plain ssh user is no secret."""

    def masked(found: re.Match[str]) -> str:
        scheme, user = found.groups()
        return found[0] if scheme and ":" not in user else f"{scheme or ''}://***@"

    return USER_INFO.sub(masked, words)
