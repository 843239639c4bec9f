"""One project's page of a package index: read up to a limit, as JSON or HTML."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import urldefrag, urljoin

import httpx

PAGE_LIMIT = 64 << 20  # bytes of one project's page, unpacked
JSON = "application/vnd.pypi.simple.v1+json"
LINK = re.compile(r"<a\s([^>]*)>(.*?)</a>", re.IGNORECASE | re.DOTALL)
ATTRIBUTE = re.compile(r"""([\w-]+)\s*=\s*("[^"]*"|'[^']*')""")


class Opens(Protocol):
    """An index, as far as reading it goes."""

    def open(
        self, url: str, *, headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[httpx.Response]:
        """The answer, not yet read."""


def read_page(index: Opens, url: str) -> tuple[int, list[dict[str, object]]]:
    """The status of an index's answer, and the files that it names, by whole addresses.

    Raises what httpx raises, and ValueError for a page that is too large or none.
    """
    with index.open(url, headers={"Accept": f"{JSON}, text/html;q=0.5"}) as answer:
        if answer.status_code != 200:
            return answer.status_code, []
        page = bytearray()
        for chunk in answer.iter_bytes():
            page += chunk
            if len(page) > PAGE_LIMIT:
                raise ValueError(f"the page {url} is larger than {PAGE_LIMIT} bytes")
        text = page.decode(answer.encoding or "utf-8", errors="replace")
    files = files_of(answer.headers.get("Content-Type", ""), text)
    for file in files:
        file["url"] = urldefrag(urljoin(str(answer.url), str(file["url"]))).url
    return 200, [file for file in files if str(file["url"]).isprintable()]  # others lead nowhere


def files_of(kind: str, text: str) -> list[dict[str, object]]:
    """The files of a page of this content type, JSON or HTML (PEP 691, PEP 503)."""
    if "json" in kind:
        found: list[dict[str, object]] = json.loads(text)["files"]
        return found
    files: list[dict[str, object]] = []
    for attributes, shown in LINK.findall(text):
        pairs = {k.lower(): html.unescape(v[1:-1]) for k, v in ATTRIBUTE.findall(attributes)}
        url, fragment = urldefrag(pairs.get("href", ""))
        algorithm, _, value = fragment.partition("=")
        file: dict[str, object] = {
            "filename": html.unescape(shown).strip(),
            "url": url,
            "hashes": {algorithm: value} if algorithm == "sha256" else {},
        }
        if "data-requires-python" in pairs:
            file["requires-python"] = pairs["data-requires-python"]
        if "data-core-metadata" in pairs or "data-dist-info-metadata" in pairs:
            file["core-metadata"] = True
        if "data-yanked" in pairs:
            file["yanked"] = pairs["data-yanked"] or True
        files.append(file)
    return files
