"""Commands from a machine without settings, over the HTTP API of a server."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, TextIOWrapper
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from reconciler.cli import main
from reconciler.cli.sources.credentials import logins_path, server_url
from reconciler.core.events import EventKind
from reconciler.core.model import Change
from reconciler.version import installed_version
from tests.fakes.events import event
from tests.fakes.fleet import AT, builds, name_of
from tests.harness import tls_server
from tests.harness.pages import OPERATOR, READER, Served, write

FLEET = 12


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("served"), FLEET)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def url(served: Served) -> str:
    return served.start()


@pytest.fixture(autouse=True)
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the home of a user on a machine without settings."""
    for name in ("CONFIG", "SERVER", "TOKEN", "TOKEN_FILE", "CA_FILE", "STATE_DIR"):
        monkeypatch.setenv(f"GROUNDCREW_{name}", "")  # so that what a command sets is undone
        monkeypatch.delenv(f"GROUNDCREW_{name}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reader(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the server and a token that may read."""
    monkeypatch.setenv("GROUNDCREW_SERVER", url)
    monkeypatch.setenv("GROUNDCREW_TOKEN", READER)


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text.encode())))


# ----------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["status", f"instance/{name_of(0)}"],
        ["history", "-n", "7"],
        ["history", "--kind", "BuildReady", "--kind", "ActivationActive"],
        ["history", f"instance/{name_of(0)}"],
        ["builds"],
        ["builds", f"instance/{name_of(0)}"],
        ["runtimes"],
        ["why", "PyArrow"],
        ["why", "base-3", name_of(0)],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("reader")
def test_a_document_is_the_same_from_the_records_and_from_a_server(
    command: Sequence[str],
    served: Served,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One code decides and prints; only the place where it reads differs."""
    assert main([*command, "-o", "json"]) == 0
    from_server = json.loads(capsys.readouterr().out)
    monkeypatch.delenv("GROUNDCREW_SERVER")
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(served.root / "state"))
    monkeypatch.setenv("GROUNDCREW_SHARE", str(served.share.root))
    assert main([*command, "-o", "json"]) == 0
    assert _timeless(json.loads(capsys.readouterr().out)) == _timeless(from_server)
    assert from_server


def _timeless(document: Any) -> Any:
    """Leave out when conditions began, which depends on when the status was computed."""
    for kind in ("environments", "instances"):
        for one in document.get(kind, []) if isinstance(document, dict) else []:
            for condition in one.get("conditions", []) if isinstance(one, dict) else []:
                del condition["at"]
    return document


@pytest.mark.usefixtures("reader")
def test_tables_differences_and_logs_come_from_a_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the names of objects, and by the keys of builds."""
    made, failed = builds(0)[0], builds(8)[0]
    assert main(["status"]) == 0
    assert name_of(0) in capsys.readouterr().out
    assert main(["diff", f"environment/{name_of(0)}", f"environment/{name_of(0)}"]) == 0
    assert "both have the same" in capsys.readouterr().out
    assert main(["logs", made.key]) == 0
    assert capsys.readouterr().out == "resolved 3 packages\nverified\n"
    assert main(["logs", "-f", f"environment/{name_of(0)}"]) == 0
    assert capsys.readouterr().out == "resolved 3 packages\nverified\n"
    assert main(["logs", failed.key]) == 1
    assert "has no log here" in capsys.readouterr().err
    assert main(["status", "nothing"]) == 2
    assert "no environment or instance nothing" in capsys.readouterr().err


@pytest.mark.usefixtures("reader")
def test_why_names_who_requires_a_package(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the build or of the base, down from the definition; exit 1 if nothing has it."""
    assert main(["why", "pyarrow", name_of(0), "-o", "json"]) == 0
    (origin,) = json.loads(capsys.readouterr().out)
    assert (origin["version"], origin["source"]) == ("21.0.0", "build")
    assert origin["required_by"] == ["pandas"]
    assert origin["chain"] == ["the definition", "pandas", "pyarrow"]
    assert main(["why", "duckdb", name_of(0)]) == 0
    assert "the definition > duckdb" in capsys.readouterr().out
    assert main(["why", "base-3", name_of(0), "-o", "json"]) == 0
    (origin,) = json.loads(capsys.readouterr().out)
    assert (origin["version"], origin["source"]) == ("1.3", "base")
    assert origin["required_by"] == ["pandas"]
    assert main(["why", "nothing", name_of(0)]) == 1
    assert "has no nothing, and its base neither" in capsys.readouterr().err
    assert main(["why", "pandas", "nowhere"]) == 2
    assert "no environment nowhere" in capsys.readouterr().err


@pytest.mark.usefixtures("reader")
def test_a_growing_log_is_read_on_from_where_it_was(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """A build that runs has its log at the leader; one that begins anew is shown from its begin."""
    from reconciler.cli.logs import GrowingLog
    from reconciler.cli.sources.choice import opened

    with opened() as source:
        log = GrowingLog(source, source.builds(name_of(0))[0])
        file = served.logs / f"{log.build.key}.log"
        for text, shown in (("one\n", "one\n"), ("one\ntwo\n", "two\n"), ("anew\n", "anew\n")):
            file.write_text(text)
            log.copy()
            assert capsys.readouterr().out == shown
        file.unlink()


@pytest.mark.usefixtures("reader")
def test_the_course_of_an_activation_is_shown(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """From its begin to its end; following one that was rolled back exits with 1."""
    subject = f"instance/{name_of(2)}"
    assert main(["logs", subject]) == 2
    assert "has had no activation" in capsys.readouterr().err
    kinds = ("ActivationStarted", "ActivationPhase", "RolledBack", "RetryRequested")
    events = tuple(
        event(AT + n, kind, subject, "red", kind, f"event {n}") for n, kind in enumerate(kinds)
    )
    write(served, Change(events=events))
    assert main(["logs", "-f", subject]) == 1
    shown = capsys.readouterr()
    assert [line.split()[3] for line in shown.out.splitlines()] == list(kinds[:3])
    assert "has ended with RolledBack" in shown.err


# --------------------------------------------------------------------------------------- operating


@pytest.mark.usefixtures("reader")
def test_requests_go_to_the_same_queue_with_the_name_of_the_token(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader is refused in words; nothing is queued then."""
    woken, subject = served.woken, f"instance/{name_of(0)}"
    assert main(["suspend", subject]) == 1
    assert "Team reader may read, not operate [Forbidden]" in capsys.readouterr().err
    assert served.store.requests() == []
    monkeypatch.setenv("GROUNDCREW_TOKEN", OPERATOR)
    assert main(["suspend", name_of(0)]) == 2
    assert "give one of these names" in capsys.readouterr().err
    assert main(["suspend", subject]) == 0
    (queued,) = served.store.requests()
    assert (queued.who, queued.target) == ("On-call engineer (HTTP)", subject)
    shown = capsys.readouterr()
    assert f"suspend {subject}: queued as request {queued.id}" in shown.out
    assert served.woken == woken + 1
    assert main(["confirm-prune"]) == 1
    assert "nothing is held back" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- login


def test_a_login_is_kept_for_the_user_alone_until_the_logout(
    url: str,
    laptop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The token comes from standard input and is shown nowhere."""
    type_in(monkeypatch, f"{OPERATOR}\n")
    assert main(["login", f"{url}/"]) == 0
    assert f"logged in to {url} as On-call engineer, who may operate" in capsys.readouterr().out
    kept = logins_path()
    assert kept.is_relative_to(laptop)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert main(["status"]) == 0
    assert main(["version"]) == 0
    shown = capsys.readouterr()
    assert f"server {installed_version()} ({url})" in shown.out
    kept.chmod(0o640)
    assert main(["status"]) == 2
    assert f"chmod 600 {kept}" in capsys.readouterr().err
    kept.chmod(0o600)
    assert main(["logout"]) == 0
    assert OPERATOR not in kept.read_text()
    assert main(["status"]) == 2
    shown = capsys.readouterr()
    assert "no server is known" in shown.err
    assert OPERATOR not in shown.out + shown.err
    assert main(["logout"]) == 1


def test_a_wrong_token_is_not_kept(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither is one that is no token; the message does not repeat it."""
    for token, code, message in (
        ("a-wrong-token", 1, "does not know this token"),
        ("two words", 2, "one word without spaces"),
        ("", 1, "needs a token: `groundcrew login`"),
    ):
        type_in(monkeypatch, token)
        assert main(["login", url]) == code
        shown = capsys.readouterr()
        assert message in shown.err
        assert not token or token not in shown.out + shown.err
    assert not logins_path().exists()


def test_without_settings_and_server_the_command_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever may be in /var/lib."""
    for command in (["status"], ["history"], ["retry", "x"], ["builds"], ["logs", "x"]):
        assert main(command) == 2
        shown = capsys.readouterr().err
        assert "there is no groundcrew.toml in this folder and no server is known" in shown
        assert "/var/lib" not in shown
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"groundcrew {installed_version()}\n"


def test_the_records_here_come_before_a_login_and_after_a_named_server(
    url: str,
    served: Served,
    laptop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A login never hides the daemon of this machine."""
    type_in(monkeypatch, READER)
    assert main(["login", url]) == 0
    (laptop / "groundcrew.toml").write_text(f'state_dir = "{laptop}/none"\n')
    assert main(["status"]) == 3
    assert f"{laptop}/none/groundcrew.db does not exist" in capsys.readouterr().err
    assert main(["--server", url, "status"]) == 0
    assert main(["--server", url, "--config", "groundcrew.toml", "status"]) == 2
    assert "either --config" in capsys.readouterr().err
    del served


# ------------------------------------------------------------------------------------------ trouble


class Odd(BaseHTTPRequestHandler):
    """Server of something else, which keeps the tokens that it is sent."""

    responses_by_path: ClassVar[dict[str, tuple[int, bytes, dict[str, str]]]] = {
        "/moved": (302, b"", {"Location": "/elsewhere"}),
        "/page": (200, b"<html>", {}),
        "/none": (404, b"<html>", {}),
        "/away": (502, b"<html>", {}),
        "/newer": (200, b'{"version": 2}', {}),
    }
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        prefix = self.path.partition("/api/")[0]
        status, body, headers = self.responses_by_path[prefix]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/moved", "redirects to /elsewhere, maybe a login page"),
        ("/page", "does not understand"),
        ("/newer", "`groundcrew version` shows"),
        ("/none", "it is not a Groundcrew server"),
        ("/away", "answers 502, as a proxy does"),
    ],
)
def test_another_server_is_named_for_what_it_is(
    path: str,
    message: str,
    odd: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each exits with 3; a redirect is not followed, so its target never sees the token."""
    monkeypatch.setenv("GROUNDCREW_TOKEN", READER)
    assert main(["--server", f"{odd}{path}", "status"]) == 3
    shown = capsys.readouterr()
    assert message in shown.err
    assert READER not in shown.out + shown.err
    assert not [one for one in Odd.asked if one.startswith("/elsewhere")]


def test_an_address_that_does_not_answer_is_unreachable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what to check."""
    assert main(["--server", "http://127.0.0.1:9", "status"]) == 3
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_a_token_is_never_sent_without_encryption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Except to this machine."""
    monkeypatch.setenv("GROUNDCREW_TOKEN", READER)
    assert main(["--server", "http://groundcrew.example", "status"]) == 2
    assert "the token is not sent to it; use https://" in capsys.readouterr().err


def test_the_authority_of_a_certificate_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it the certificate is refused; with it the server is asked."""
    with tls_server.serving(tmp_path) as server:
        assert main(["--server", server.url, "status"]) == 3
        assert "is not trusted; name the file of its authority" in capsys.readouterr().err
        monkeypatch.setenv("GROUNDCREW_CA_FILE", str(server.certificate))
        assert main(["--server", server.url, "status"]) == 3
        assert "[ServerUnreachable]" in capsys.readouterr().err
    monkeypatch.setenv("GROUNDCREW_CA_FILE", str(tmp_path / "none.pem"))
    assert main(["--server", server.url, "status"]) == 2
    assert "does not hold certificates in PEM format" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPS://Groundcrew.Example/", "https://groundcrew.example"),
        ("http://[::1]:8085", "http://[::1]:8085"),
        ("https://host/team/", "https://host/team"),
    ],
)
def test_an_address_has_one_form(text: str, expected: str) -> None:
    assert server_url(text) == expected


@pytest.mark.parametrize(
    "text", ["host", "ftp://host", "https://", "https://a\x01b", "https://u:secret@host"]
)
def test_what_is_no_address_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without repeating a password in it."""
    assert main(["--server", text, "status"]) == 2
    shown = capsys.readouterr().err
    assert "address of a server" in shown
    assert "secret" not in shown


def test_history_of_a_server_can_be_followed(
    url: str, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New events come as they are recorded; Ctrl-C is no error."""
    monkeypatch.setenv("GROUNDCREW_TOKEN", READER)
    subject = f"instance/{name_of(1)}"
    command = [sys.executable, "-m", "reconciler.cli", "--server", url, "history", subject, "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert str(EventKind.ACTIVATION_ACTIVE) in following.stdout.readline()
        write(served, Change(events=(event(AT, "InstanceAdded", subject, "", "", "a new one"),)))
        assert "a new one" in following.stdout.readline()
        following.send_signal(2)
        assert following.wait(60) == 0
