"""Choice of the index for a name, and credentials of indexes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from reconciler.builder.index.egress import Reach
from reconciler.builder.index.proxy import Indexes, Upstream, credentials, without_credentials
from reconciler.core.definitions import Globs, Index, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.http_client import Client


@contextmanager
def opened(
    *indexes: Index, secrets: Path = Path("/nowhere"), default: str = ""
) -> Iterator[Indexes]:
    """Yield the indexes of a recipe, and close them at the end."""
    recipe_indexes = Indexes(Recipe("x", indexes=indexes), "red", secrets, default)
    yield recipe_indexes
    recipe_indexes.close()


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("acme-tools", "corp"),
        ("Acme.Tools", "corp"),
        ("acme__x", "corp"),
        ("acme", "default"),
        ("my-acme-tools", "default"),
        ("torch", "gpu"),
        ("torchvision", "default"),
    ],
)
def test_a_name_comes_from_one_index(name: str, index: str) -> None:
    """Names are compared in normal form, and the first index whose globs match has the name."""
    corp = Index("corp", "https://corp.example/simple/", ("ACME_*",))
    gpu = Index("gpu", "https://gpu.example/", ("torch", "acme-*"))
    with opened(corp, gpu) as indexes:
        assert indexes.of(name).name == index


@pytest.mark.parametrize("name", ["acme", "acme-x", "ab", "a", "abc", "x-1-y", ""])
def test_globs_are_compiled_to_what_they_mean(name: str) -> None:
    globs = ["ACME_*", "a?", "x-*-y", "torch"]
    normal = [glob.lower().replace("_", "-") for glob in globs]
    assert Globs(globs).match(name) == any(fnmatchcase(name, glob) for glob in normal)
    assert not Globs(()).match(name)


def test_credentials_are_for_their_own_origin() -> None:
    """A file that an index stores elsewhere is fetched without them."""
    with Client(timeout=5) as client:
        corp = Upstream(
            "corp", "https://corp.example/simple/", Globs(()), client, Reach(""), ("u", "p")
        )
        assert corp.auth_for("https://corp.example/files/x.whl") is not None
        assert corp.auth_for("https://files.example/x.whl") is None
        assert corp.auth_for("http://corp.example/files/x.whl") is None
        assert corp.auth_for("https://corp.example:8443/x.whl") is None


def test_a_secret_is_a_token_or_a_name_and_a_password(tmp_path: Path) -> None:
    """Both forms are read without their line ends; an empty file counts as missing."""
    folder = tmp_path / "red" / "corp"
    folder.mkdir(parents=True)
    (folder / "token").write_text("t\n")
    assert credentials(tmp_path, "red", "corp") == ("__token__", "t")
    (folder / "token").write_text("")
    (folder / "username").write_text("u\n")
    (folder / "password").write_text(" p \n")
    assert credentials(tmp_path, "red", "corp") == ("u", "p")
    (folder / "password").unlink()
    with pytest.raises(Stalled, match="red/corp/") as caught:
        credentials(tmp_path, "red", "corp")
    assert caught.value.reason == Reason.SECRET_MISSING


def test_an_address_is_shown_without_its_credentials() -> None:
    """The credentials in it are used, with their escapes undone."""
    assert without_credentials("https://h/simple/") == ("https://h/simple/", None)
    parts = without_credentials("https://u%40x:p%3Aw@h:8443/simple/?a=1")
    assert parts == ("https://h:8443/simple/?a=1", ("u@x", "p:w"))
    with opened(default="https://u:p-word@h/simple/") as indexes:
        assert indexes.secrets == {"p-word"}
        assert not indexes.plain


def test_a_certificate_that_is_none_is_told(tmp_path: Path) -> None:
    """A broken caBundle is reported with its index."""
    index = Index("corp", "https://corp.example/", ("a",), ca_bundle="no PEM")
    with pytest.raises(Stalled, match="index corp") as caught:
        Indexes(Recipe("x", indexes=(index,)), "red", tmp_path, "")
    assert caught.value.reason == Reason.INVALID_CERTIFICATE


@pytest.mark.parametrize("error", [BrokenPipeError, RuntimeError])
def test_a_client_that_went_away_is_not_reported(
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A resolver that is ended closes its connections; anything else is logged, never printed."""
    answered = threading.Event()

    def answer(self: Indexes, handler: BaseHTTPRequestHandler, path: str, base: str) -> None:
        handler.close_connection = True
        answered.set()
        raise error

    monkeypatch.setattr(Indexes, "answer", answer)
    with opened() as indexes, indexes.serve(None) as url, Client(timeout=10) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{url}humanize/")
        assert answered.is_set()
    assert [record.message for record in caplog.records] == (
        [] if error is BrokenPipeError else ["unexpected error in a request for an index"]
    )
    assert capsys.readouterr() == ("", "")
