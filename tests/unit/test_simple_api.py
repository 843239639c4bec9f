"""Pages of package indexes: responses of real servers are read as pip and uv read them."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress

import pytest

from reconciler.builder.index.simple_api import PAGE_LIMIT, fetch_page, files_of
from reconciler.documents import Malformed
from reconciler.http_client import Client, TooLarge
from tests.fakes.answers import Answers

BASE = "https://index.example/corp/simple/acme/"
WHEEL = "acme-1.0-py3-none-any.whl"


def html(page: str, base: str = BASE) -> list[dict[str, object]]:
    return files_of("text/html; charset=utf-8", page.encode(), base)


def urls(page: str) -> list[object]:
    return [file["url"] for file in html(page)]


def test_an_html_page_keeps_what_decides() -> None:
    """Hashes, required Pythons, yanked files and metadata are preserved."""
    page = (
        '<a href="../../p/a-1-py3-none-any.whl#sha256=ab" '
        'data-requires-python="&gt;=3.9" data-yanked="bad"\n'
        " data-core-metadata='sha256=cd'>a-1.whl</a><A HREF='a-2.tar.gz'> a-2.tar.gz </A>"
    )
    assert html(page) == [
        {
            "filename": "a-1-py3-none-any.whl",
            "url": "https://index.example/corp/p/a-1-py3-none-any.whl",
            "hashes": {"sha256": "ab"},
            "requires-python": ">=3.9",
            "yanked": "bad",
            "core-metadata": True,
        },
        {"filename": "a-2.tar.gz", "url": f"{BASE}a-2.tar.gz", "hashes": {}},
    ]


@pytest.mark.parametrize(
    "link",
    [
        f"<a href={WHEEL}>x</a>",
        f"<a class=file href={WHEEL} data-yanked>x</a>",
        f'<a\n\thref = "{WHEEL}"\n>x</a>',
        f'<a href="{WHEEL}"><code><b>acme-1.0-py3-..&gt;</b></code></a>',
        f'<a title="a > b" data-requires-python=">=3.9" href="{WHEEL}">x</a>',
        f'<table><tr><td><a href="{WHEEL}">x</table>',
        f'<a href="./{WHEEL}">x',
        f'<a href="{WHEEL}?token=1">x</a>',
        f'<a href=" {WHEEL} ">x</a>',
        f'<!-- <a href="old-1.0-py3-none-any.whl">x</a> --><a href="{WHEEL}">x</a>',
        f'<script>"<a href=no.whl>"</script><a href="{WHEEL}">x</a>',
        f'<a href="/get?file=7"> {WHEEL} </a>',
        f'<a name="top"></a><a href="../">up</a><a href="{WHEEL}">x</a>',
        f'<div><a href="{WHEEL}"/></div>',
    ],
)
def test_the_name_comes_from_the_address(link: str) -> None:
    """The link's text, the spelling and the surrounding markup do not matter."""
    assert [file["filename"] for file in html(f"<!DOCTYPE html><html><body>{link}")] == [WHEEL]


def test_a_raw_greater_than_is_part_of_a_value() -> None:
    """Only the newest file has one, and it must not be lost."""
    page = '<a href="a-1.tar.gz">a</a><a href="a-2.tar.gz" data-requires-python=">=3.9,<4">a</a>'
    assert html(page)[1]["requires-python"] == ">=3.9,<4"


def test_links_are_relative_to_the_pages_base() -> None:
    """The first base counts, and it may be relative itself."""
    page = f'<head><base href="/files/"><base href="/no/"></head><a href="{WHEEL}">x</a>'
    assert urls(page) == [f"https://index.example/files/{WHEEL}"]
    assert urls(page.replace("/files/", "../../pool/")) == [
        f"https://index.example/corp/pool/{WHEEL}"
    ]


@pytest.mark.parametrize(
    "href",
    [
        "javascript:x.whl",
        "file:///etc/x.whl",
        "http://[x/a.whl",
        "a%2F..%2Fb.whl",
        "a%00.whl",
        "a" * 300 + ".whl",
        "",
        "#x",
        "mailto:a@b.whl",
    ],
)
def test_links_that_lead_nowhere_are_left_out(href: str) -> None:
    """The other links of the page are kept."""
    page = f'<a href="{href}">x</a><a href="{WHEEL}">x</a>'
    assert [file["filename"] for file in html(page)] == [WHEEL]


@pytest.mark.parametrize("charset", ["iso-8859-1", "nonsense", "utf-16", ""])
def test_other_character_sets_are_read(charset: str) -> None:
    """An unknown one is read as UTF-8."""
    known = charset if charset not in ("nonsense", "") else "utf-8"
    page = f'<p>Bücher</p><a href="{WHEEL}">x</a>'.encode(known)
    assert len(files_of("text/html", page, BASE, charset or None)) == 1


def test_an_empty_page_has_no_files() -> None:
    """Some servers report an empty project this way."""
    assert html("") == html("  ") == html("<!-- nothing -->") == []


@pytest.mark.parametrize(
    "row",
    [
        None,
        1,
        [],
        {},
        {"filename": 1, "url": "x"},
        {"filename": "x.whl"},
        {"filename": "x.whl", "url": ["y"]},
        {"filename": "../x.whl", "url": "y"},
    ],
)
def test_a_wrong_row_of_json_costs_itself(row: object) -> None:
    """All other rows of a page with thousands of files are kept."""
    good = {"filename": WHEEL, "url": WHEEL, "hashes": {"sha256": "ab"}, "size": 5}
    page = json.dumps({"files": [row, good], "meta": {"api-version": "1.9"}}).encode()
    assert files_of("application/vnd.pypi.simple.v1+json", page, BASE) == [
        {**good, "url": BASE + WHEEL}
    ]


def test_fields_of_the_wrong_kind_are_left_out() -> None:
    """An invalid optional field does not discard the file."""
    wrong = {"requires-python": 3, "yanked": [], "size": "x", "hashes": [], "core-metadata": None}
    page = json.dumps({"files": [{"filename": WHEEL, "url": WHEEL, **wrong}]}).encode()
    assert files_of("application/json", page, BASE) == [
        {"filename": WHEEL, "url": BASE + WHEEL, "hashes": {}}
    ]


FORGERIES = [
    b"[]",
    b"{}",
    b"null",
    b"1",
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"files":' * 50_000,
    b'{"files": {"a": 1}}',
    b'{"files": "x"}',
    b'{"files": NaN}',
    b'{"files": [{"filename": "\\ud800.whl", "url": "x"}]}',
    b'{"files": [' + b"1," * 9,
]


@pytest.mark.parametrize("page", FORGERIES, ids=lambda page: repr(page[:30]))
def test_json_that_is_no_page_is_said_in_words(page: bytes) -> None:
    """There is never another exception, and never the content in the message."""
    with pytest.raises(Malformed, match=r"the page https://index\.example") as caught:
        files_of("application/json", page, BASE)
    assert len(str(caught.value)) < 500


def test_what_is_hostile_is_read_in_linear_time() -> None:
    """Each megabyte takes a moment; with quadratic time all would take hours."""
    pieces = ["<!--", "<a ", "<a href=", "<![CDATA[", "<a href=x>", "</x", "<div><p>", "&"]
    for piece in pieces:
        with suppress(Malformed):  # too many links
            html(piece * ((1 << 20) // len(piece)))


def test_an_index_is_asked_for_a_page_within_bounds() -> None:
    """A small response that decompresses to any size is not read beyond the limit."""
    bomb = gzip.compress(bytes(PAGE_LIMIT + (1 << 20)))
    assert len(bomb) < 1 << 20
    with Answers(bomb, {"Content-Encoding": "gzip", "Content-Type": "text/html"}) as server:
        index = _Index()
        with index.client, pytest.raises(TooLarge, match="more than"):
            fetch_page(index, f"{server.url}/simple/a/")


class _Index:
    def __init__(self) -> None:
        self.client = Client(timeout=20)

    def open(self, url: str, *, headers: object = None):  # type: ignore[no-untyped-def]
        return self.client.stream("GET", url, headers=headers)  # type: ignore[arg-type]
