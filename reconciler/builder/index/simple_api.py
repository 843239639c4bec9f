"""Page of one project in a package index, read up to a limit, as JSON or HTML.

The daemon fetches pages; `serve_page` runs in a worker process (see reconciler.isolation) and
creates the page that the daemon sends on, so that nothing is parsed in the daemon itself.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import httpx
from lxml import etree
from pydantic import BaseModel, ConfigDict

from reconciler.builder.index.filenames import is_file_name
from reconciler.documents import Malformed, parse
from reconciler.http_client import read, refusal

PAGE_LIMIT = 64 << 20  # bytes of one project's page, decompressed
FILES_LIMIT = 50_000  # files of one project
REMEMBERED_LIMIT = 64 << 20  # bytes of all pages that are remembered for one diagnosis
JSON = "application/vnd.pypi.simple.v1+json"

WHEEL = re.compile(r"[^-]+-[^-]+-[^-]+-[^-]+-.+\.whl$")
SDIST = re.compile(r".+-[^-]+\.(tar\.\w+|tgz|zip)$")

File = dict[str, object]


class Opens(Protocol):
    """Index, as far as reading it is concerned."""

    def open(
        self, url: str, *, headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[httpx.Response]:
        """Return the response, not yet read."""


@dataclass(frozen=True, slots=True)
class Page:
    """Response of an index as it was sent; `base` is the URL after redirects.

    `refusal` says what it answers instead of a page, and for how many seconds it is left alone.
    """

    status: int
    kind: str = ""
    body: bytes = b""
    base: str = ""
    charset: str | None = None
    refusal: tuple[str, float] = ("", 0.0)


@dataclass(frozen=True, slots=True)
class Served:
    """Page as it is sent on, and the real URLs of its files.

    `sources_only`: the index has files of this project, but none that may be used.
    """

    document: bytes
    urls: frozenset[str]
    sources_only: bool


class Remembered:
    """Pages as they were served, by name; up to a limit, as a project's page may be large."""

    def __init__(self, limit: int = REMEMBERED_LIMIT) -> None:
        self._left = limit
        self._pages: dict[str, Served] = {}

    def get(self, name: str) -> Served | None:
        """Return a project's page, or None."""
        return self._pages.get(name)

    def add(self, name: str, served: Served) -> None:
        """Keep a project's page, if there is room for it."""
        if name not in self._pages and len(served.document) <= self._left:
            self._left -= len(served.document)
            self._pages[name] = served


class _Project(BaseModel):
    """Project's page as JSON (PEP 691). Its rows are validated one by one."""

    model_config = ConfigDict(extra="ignore")

    files: list[Any]


def fetch_page(index: Opens, url: str) -> Page:
    """Fetch a page without parsing it. Raises httpx's errors."""
    with index.open(url, headers={"Accept": f"{JSON}, text/html;q=0.5"}) as answer:
        if answer.status_code != 200:
            return Page(answer.status_code, refusal=refusal(answer))
        body = read(answer, PAGE_LIMIT)
        kind = answer.headers.get("Content-Type", "")
        return Page(200, kind, body, str(answer.url), answer.encoding)


def serve_page(page: Page, name: str, ours: str, sources: bool) -> Served:
    """Return a project's page whose files have URLs below `ours`; sdists only if `sources`.

    Raises Malformed as `files_of` does.
    """
    listed = files_of(page.kind, page.body, page.base, page.charset)
    files = listed if sources else [f for f in listed if str(f["filename"]).endswith(".whl")]
    rows = [{**f, "url": f"{ours}/{encode(str(f['url']))}/{f['filename']}"} for f in files]
    document = {"meta": {"api-version": "1.0"}, "name": name, "files": rows}
    urls = frozenset(str(f["url"]) for f in files)
    return Served(json.dumps(document).encode(), urls, bool(listed) and not files)


def encode(url: str) -> str:
    """Return a URL as one component of a path."""
    return base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def decode(text: str) -> str:
    """Return the URL that `encode` turned into a path component."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()


def files_of(kind: str, page: bytes, base: str, charset: str | None = None) -> list[File]:
    """Return the files of a page of this content type, JSON or HTML (PEP 691, PEP 503).

    `base` is the page's own URL. Files without a usable name or URL are left out. Raises Malformed
    for JSON that is not such a page, and for too many files.
    """
    rows: list[Any]
    read_row: Callable[[Any], File | None]
    if "json" in kind:
        rows, read_row = parse(_Project, page, f"the page {base}").files, _json_file
    else:
        links = _Links()
        parser = etree.HTMLParser(target=links, encoding=_known(charset))
        parser.feed(page)
        with contextlib.suppress(etree.LxmlError):  # an empty page
            parser.close()
        base = _joined(base, links.base) or base
        rows, read_row = links.found, _html_file
    if len(rows) > FILES_LIMIT:
        raise Malformed(f"the page {base} names more than {FILES_LIMIT} files")
    files = map(read_row, rows)
    return [whole for file in files if file is not None and (whole := _whole(file, base))]


class _Links:
    """Relevant parts of an HTML page: its links, and the URL that they are relative to."""

    def __init__(self) -> None:
        self.base = ""
        self.found: list[tuple[dict[str, str], list[str]]] = []  # attributes, pieces of text
        self._open = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Handle a start tag."""
        if tag == "a" and "href" in attributes:
            self.found.append((dict(attributes), []))
            self._open = True
        elif tag == "base" and not self.base:
            self.base = attributes.get("href", "")

    def end(self, tag: str) -> None:
        """Handle an end tag."""
        self._open = self._open and tag != "a"

    def data(self, text: str) -> None:
        """Handle text."""
        if self._open:
            self.found[-1][1].append(text)

    def close(self) -> None:
        """End the page."""


def _known(charset: str | None) -> str:
    """Return a character set that the parser knows, or UTF-8."""
    try:
        etree.HTMLParser(encoding=charset or "utf-8")
    except LookupError:
        return "utf-8"
    return charset or "utf-8"


def _html_file(found: tuple[Mapping[str, str], Sequence[str]]) -> File | None:
    """Return a link's file, or None.

    The name is from the URL, as the text may be shortened; from the text if the URL has none.
    """
    link, text = found
    try:
        url, fragment = urldefrag(link["href"].strip())
        path = urlsplit(url).path
    except ValueError:
        return None
    names = (unquote(path.rpartition("/")[2]), "".join(text).strip())
    name = next((n for n in names if WHEEL.match(n) or SDIST.match(n)), None)
    if name is None:
        return None
    algorithm, _, value = fragment.partition("=")
    file: File = {
        "filename": name,
        "url": url,
        "hashes": {algorithm: value} if algorithm == "sha256" else {},
    }
    if "data-requires-python" in link:
        file["requires-python"] = link["data-requires-python"]
    if "data-core-metadata" in link or "data-dist-info-metadata" in link:
        file["core-metadata"] = True
    if "data-yanked" in link:
        file["yanked"] = link["data-yanked"] or True
    return file


def _json_file(row: object) -> File | None:
    """Return a row's file, without fields of the wrong type, or None."""
    if not isinstance(row, dict) or not isinstance(row.get("filename"), str):
        return None
    hashes = row.get("hashes")
    file: File = {
        "filename": row["filename"],
        "url": row.get("url"),
        "hashes": {
            name: value
            for name, value in (hashes.items() if isinstance(hashes, dict) else ())
            if isinstance(value, str)
        },
    }
    for key, kind in FIELDS.items():
        if isinstance(row.get(key), kind):
            file[key] = row[key]
    if row.get("core-metadata") or row.get("dist-info-metadata"):
        file["core-metadata"] = True
    return file


FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "requires-python": str,
    "yanked": (bool, str),
    "size": int,
    "upload-time": str,
}
"""Optional fields of a file, in addition to its metadata, that affect a resolution."""


def _whole(file: File, base: str) -> File | None:
    """Return a file with its absolute URL, or None if its name or URL is unusable."""
    url = file["url"]
    if not isinstance(url, str) or not is_file_name(str(file["filename"])):
        return None
    whole = _joined(base, url)
    return {**file, "url": whole} if whole is not None and whole.isprintable() else None


def _joined(base: str, url: str) -> str | None:
    """Return a link's absolute URL, or None if it is not an HTTP URL."""
    try:
        whole = urldefrag(urljoin(base, url)).url
        return whole if urlsplit(whole).scheme in ("http", "https") else None
    except ValueError:
        return None
