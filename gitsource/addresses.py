"""Addresses and archives in lines that users copy."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # of a package
NAME_LIMIT = 79  # characters


def is_archive(text: str) -> bool:
    """Return True for the path or URL of a wheel or another archive."""
    return text.endswith(ARCHIVES) and not any(c.isspace() for c in text)


def name_in(address: str) -> str:
    """Return the name at the end of a URL: from #egg=, or of a repository."""
    egg = re.search(r"[#&]egg=([A-Za-z0-9._-]{1,80})", address)
    last = address.split("#")[0].rstrip("/").rpartition("/")[2].partition("@")[0]
    name = egg[1] if egg else last.removesuffix(".git")
    return name if NAME.fullmatch(name) and len(name) <= NAME_LIMIT else "acme"


def without_login(address: str) -> str:
    """Return a URL without credentials."""
    try:
        parts = urlsplit(address.split()[0])
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    except (ValueError, IndexError):
        return "https://host.example/simple/"
