"""The values of `groundcrew plan --runtimes`: the address of a running daemon, or a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.api.documents import runtimes_document
from reconciler.cli import main
from reconciler.cli.exit_codes import Misuse
from reconciler.cli.preview.runtimes import PATH, Runtimes, read
from reconciler.core.errors import Retryable
from tests.fakes.fleet import RUNTIME, name_of
from tests.fakes.receiver import JSON, Receiver, Said
from tests.harness.pages import READER, Served

SEEN = replace(RUNTIME, python="", image=None)


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROUNDCREW_TOKEN", raising=False)
    monkeypatch.delenv("GROUNDCREW_TOKEN_FILE", raising=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server with seven instances, the last without a runtime; it requires a token."""
    server = Served(tmp_path_factory.mktemp("served"), 7)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def url(served: Served) -> str:
    return served.start()


@pytest.fixture
def other() -> Iterator[Receiver]:
    """Yield any other server."""
    receiver = Receiver()
    yield receiver
    receiver.close()


def expected() -> Runtimes:
    return Runtimes({RUNTIME.key: SEEN}, {name_of(n): RUNTIME.key for n in range(6)})


@pytest.mark.parametrize("path", ["", "/", PATH])
def test_a_daemons_address_gives_them(path: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader's token is enough; an instance whose base was never inspected is left out."""
    monkeypatch.setenv("GROUNDCREW_TOKEN", READER)
    runtimes = read(url + path)
    assert runtimes == expected()
    assert runtimes.of(name_of(6)) is None
    assert runtimes.of(name_of(0)) == SEEN


def test_the_command_prints_what_the_daemon_serves_and_a_file_of_it_is_taken(
    served: Served,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One document appears in three places, without a path of the daemon's machine."""
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(served.root / "state"))
    assert main(["runtimes"]) == 0
    printed = capsys.readouterr().out
    document = json.loads(json.dumps(runtimes_document(served.store.load())))
    assert json.loads(printed) == document
    assert RUNTIME.python not in printed
    file = tmp_path / "runtimes.json"
    file.write_text(printed)
    assert read(str(file)) == expected()


def test_a_token_comes_from_a_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newline at its end is no part of it; a missing file is reported."""
    file = tmp_path / "token"
    file.write_text(f"{READER}\n")
    monkeypatch.setenv("GROUNDCREW_TOKEN_FILE", str(file))
    assert read(url) == expected()
    file.unlink()
    with pytest.raises(Misuse, match=r"GROUNDCREW_TOKEN_FILE .*No such file"):
        read(url)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_a_good_token_it_says_what_is_needed(
    token: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message explains the status 401."""
    monkeypatch.setenv("GROUNDCREW_TOKEN", token)
    with pytest.raises(Retryable, match="role read in GROUNDCREW_TOKEN"):
        read(url)


@pytest.mark.parametrize("token", ["two words", "snowm\N{SNOWMAN}n", "line\nbreak"])
def test_what_is_no_token_is_not_sent_and_not_shown(
    token: str, other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the contents of some other file."""
    monkeypatch.setenv("GROUNDCREW_TOKEN", token)
    with pytest.raises(Misuse, match="GROUNDCREW_TOKEN does not hold a token") as caught:
        read(other.root)
    assert token not in str(caught.value)
    assert other.got == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(404), "give a daemon's address"),
        (Said(403), "does not take this token"),
        (Said(302, {"Location": "https://login.example/"}), "a login page"),
        (Said(503), "answered 503"),
        (Said(200, JSON, "<html>"), "is not what `groundcrew runtimes` prints: Invalid JSON"),
        (Said(200, JSON, "{}"), "prints: apiVersion: Field required"),
        (Said(200, JSON, '{"apiVersion": "groundcrew/v9"}'), "Input should be 'groundcrew/v1'"),
    ],
    ids=["absent", "forbidden", "login", "down", "page", "empty", "newer"],
)
def test_an_answer_that_is_none_is_told_in_words(
    said: Said, words: str, other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to do, without token or password; redirects are not followed."""
    monkeypatch.setenv("GROUNDCREW_TOKEN", "t0ken-of-mine")
    other.answer = lambda *_: said
    with pytest.raises((Misuse, Retryable)) as caught:
        read(other.root.replace("http://", "http://me:passw0rd@") + "/envs/runtimes.json")
    assert words in str(caught.value)
    assert other.root + "/envs/runtimes.json" in str(caught.value)
    assert "passw0rd" not in str(caught.value)
    assert "t0ken-of-mine" not in str(caught.value)
    assert [g.path for g in other.got] == ["/envs/runtimes.json"]


def test_a_newer_daemon_may_say_more(other: Receiver, served: Served) -> None:
    """Keys may be added within v1: unknown ones are ignored."""
    document = runtimes_document(served.store.load())
    more = json.loads(json.dumps(document))
    more["more"] = more["runtimes"][RUNTIME.key]["more"] = 1
    more["runtimes"][RUNTIME.key]["base"][0]["more"] = {"a": 1}
    other.answer = lambda *_: Said(200, JSON, json.dumps(more))
    assert read(other.root) == expected()
    assert [g.path for g in other.got] == [PATH]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:1", "check the address"),
        ("http://127.0.0.1:port", "is not an address"),
        ("http://", "names no host"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(address: str, words: str) -> None:
    """Nobody listens there, or it is no address at all."""
    with pytest.raises((Misuse, Retryable), match=words):
        read(address)
