"""Network policy of a build: no access to the daemon's machine or into the company's network."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.builder.build_job import BuildJob
from reconciler.builder.files import fetch_files
from reconciler.builder.index import egress
from reconciler.builder.index.egress import Reach, kind_of
from reconciler.core.definitions import FileItem, Recipe
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.http_client import Client
from reconciler.settings import BuilderSettings
from reconciler.share.share import Share
from tests.fakes.addresses import Served, served

WITHIN = "words from within"


@pytest.fixture
def within() -> Iterator[Served]:
    """Yield a service that a definition must not reach."""
    with served({"/": WITHIN, "/x": WITHIN}) as service:
        yield service


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove proxies from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def read(it: Reach, url: str) -> str:
    """Return what is read at a URL."""
    with Client(timeout=10) as client, it.open(client, url) as answer:
        return answer.read().decode()


def refusal(it: Reach, url: str) -> str:
    """Return the reason why a URL is not read."""
    with pytest.raises(Stalled) as caught:
        read(it, url)
    assert caught.value.reason == Reason.ADDRESS_REFUSED
    return caught.value.message


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("10.1.2.3", "private"),
        ("192.168.1.1", "private"),
        ("172.16.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12::1", "private"),
        ("151.101.0.223", ""),
        ("2a04:4e42::223", ""),
        ("64:ff9b::9765:df", ""),
    ],
)
def test_an_address_is_what_it_stands_for(address: str, kind: str) -> None:
    """The forms in which IPv6 embeds an IPv4 address are resolved."""
    assert kind_of(address) == kind


def test_a_loopback_address_is_read_only_if_the_operator_chose_it(within: Served) -> None:
    """The settings must have the index's URL or an allowed host; otherwise nothing is sent."""
    message = refusal(Reach(within.url), within.url + "/")
    assert f"{within.url}/ is not read" in message
    assert "127.0.0.1 is 127.0.0.1, a loopback address" in message
    assert "builder.allow_hosts" in message
    assert within.asked == []
    assert read(Reach(within.url, operator=True), within.url + "/") == WITHIN
    for allowed in (within.host, "127.0.0.*"):
        assert read(Reach("http://corp.example/", allow=[allowed]), within.url + "/") == WITHIN
    refusal(Reach(within.url, allow=["127.0.0.1:1", "corp.example"]), within.url + "/")


def test_a_redirect_leads_to_no_other_service_of_the_machine(within: Served) -> None:
    """Each hop is checked, including its port; one within the index's own origin is followed."""
    with served({"/a": "→ /b", "/b": f"→ {within.url}/x", "/c": "→ /d", "/d": "here"}) as index:
        it = Reach(index.url, operator=True)
        assert read(it, index.url + "/c") == "here"
        assert within.url in refusal(it, index.url + "/a")
    assert within.asked == []


def test_a_name_is_judged_by_the_address_that_is_connected_to(
    within: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that first resolves to a public address and then to loopback gains nothing."""
    real: Any = socket.getaddrinfo
    port = int(within.host.split(":")[1])
    answers = iter(["151.101.0.223"])

    def turning(host: str, *rest: object, **more: object) -> object:
        if host != "turning.example":
            return real(host, *rest, **more)
        return real(next(answers, "127.0.0.1"), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", turning)
    assert egress._resolved("turning.example") == {"151.101.0.223"}
    message = refusal(Reach("http://x.example/"), f"http://turning.example:{port}/x")
    assert "turning.example is 127.0.0.1" in message
    assert within.asked == []


def test_a_public_index_leads_to_nothing_private_and_a_private_one_does(
    within: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's index stores its files beside it; outsiders must not point inside."""
    kinds = {"127.0.0.1": egress.PRIVATE, "127.0.0.2": ""}
    monkeypatch.setattr(egress, "kind_of", kinds.get)
    with served({"/a": f"→ {within.url}/x"}, "127.0.0.2") as public:
        it = Reach(public.url)
        assert "a private address" in refusal(it, within.url + "/x")  # nothing has answered yet
        assert "a private address" in refusal(it, public.url + "/a")
        kinds["127.0.0.2"] = egress.PRIVATE  # it resolves to another address from now on
        with Client(timeout=10) as client, it.open(client, public.url + "/nothing"):
            pass
        assert "a private address" in refusal(it, within.url + "/x")
        assert within.asked == []
        assert read(Reach(public.url), public.url + "/a") == WITHIN
    assert read(Reach(within.url), within.url + "/x") == WITHIN


def test_redirects_end_and_do_not_leave_https() -> None:
    """An endless chain, and one to plain http, are refused with a message."""
    with served({"/a": "→ /a"}) as index:
        it = Reach(index.url, operator=True)
        assert "more than 5 redirects" in refusal(it, index.url + "/a")
        assert len(index.asked) == 6
    secure = Reach("https://corp.example/simple/", operator=True)
    assert "from https to plain http" in refusal(secure, "http://user:word@files.example/x?key=1")
    assert "word" not in refusal(secure, "http://user:word@files.example/x?key=1")
    assert "key" not in refusal(secure, "http://user:word@files.example/x?key=1")


def test_behind_a_proxy_the_name_is_judged_and_the_proxy_is_not(
    within: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy on loopback is the operator's; it is not used for refused URLs."""
    with served({"http://files.invalid/x": "by the proxy"}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        it = Reach("http://index.invalid/")
        assert read(it, "http://files.invalid/x") == "by the proxy"
        port = within.host.split(":")[1]
        for host in ("localhost", "127.0.0.2", "[::1]", "169.254.169.254"):
            refusal(it, f"http://{host}:{port}/x")
        assert "a private address" in refusal(it, "http://10.0.0.1/x")
        assert proxy.asked == ["http://files.invalid/x"]


def fetched(tmp_path: Path, url: str, *allow: str) -> None:
    """Fetch a file of a definition."""
    share = Share(tmp_path / "share")
    share.root.mkdir(exist_ok=True)
    share.prepare()
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    digest = hashlib.sha256(WITHIN.encode()).hexdigest()
    recipe = Recipe("x", files=(FileItem(digest, url=url, path="bin/x"),))
    job = BuildJob("x", "one", "red", "0" * 40, tmp_path / "log", threading.Event())
    settings = BuilderSettings(allow_hosts=allow)
    fetch_files(job, recipe, settings, share, tmp_path / "cache", work)


def test_a_file_is_fetched_from_where_a_definition_may_lead(tmp_path: Path, within: Served) -> None:
    """Neither its URL nor a redirect reads a local service, and no digest is revealed."""
    with served({"/a": f"→ {within.url}/x"}) as files:
        for url, allowed in ((within.url + "/x", []), (files.url + "/a", [files.host])):
            with pytest.raises(Stalled, match=within.url) as caught:
                fetched(tmp_path, url, *allowed)
            assert caught.value.reason == Reason.ADDRESS_REFUSED
        assert within.asked == []
        with pytest.raises(Retryable, match="404"):
            fetched(tmp_path, files.url + "/nothing", "127.0.0.1")
        fetched(tmp_path, files.url + "/a", "127.0.0.1")
