"""Contents of secret files, for all that log in somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitsource.access import git_environment
from metrics.channels import Outcome
from metrics.commits import CommitStatus, Forge, State
from reconciler.builder.index.proxy import credentials
from reconciler.secrets import LIMIT, Login, login, read
from reconciler.settings import StatusSettings


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"username": b"me"}, None),
        ({"password": b"\n", "username": b"me"}, None),
        ({"token": b" \n", "password": b"p\n"}, Login("", "p", is_token=False)),
        ({"username": b"me\n", "password": b"p w"}, Login("me", "p w", is_token=False)),
        ({"username": b"me", "password": b"p", "token": b"t\n"}, Login("me", "t", is_token=True)),
        ({"token": b"t-\xff"}, Login("", "t-\ufffd", is_token=True)),
    ],
)
def test_a_token_comes_before_a_password(
    files: dict[str, bytes], found: Login | None, tmp_path: Path
) -> None:
    """Surrounding white space is removed; invalid text is no error: it is refused elsewhere."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert login(tmp_path) == found


def test_what_cannot_be_read_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is too long is cut; a folder is reported in the log."""
    (tmp_path / "long").write_text("x" * (LIMIT + 1))
    assert len(read(tmp_path / "long")) == LIMIT
    assert read(tmp_path / "long" / "token") == ""
    assert caplog.text == ""
    assert read(tmp_path) == ""
    assert str(tmp_path) in caplog.text


def test_a_secret_that_is_no_text_ends_no_effect(tmp_path: Path) -> None:
    """Git and an index are tried with it, and refuse it; a forge is not even contacted."""
    secret = tmp_path / "red" / "corp"
    secret.mkdir(parents=True)
    (secret / "token").write_bytes(b"t-\xff\xfe")
    assert credentials(tmp_path, "red", "corp") == ("__token__", "t-\ufffd\ufffd")
    forge = Forge(StatusSettings(forge="github", secret="corp"), secret.parent, "")
    told = forge.send(CommitStatus("1" * 40, "groundcrew", State.SUCCESS, "active"))
    assert told.outcome is Outcome.REFUSED
    assert git_environment("https://h.example/x", ("https",), secret, tmp_path)
