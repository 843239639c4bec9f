"""Messages for misspelt names and for requests in the wrong place."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from reconciler.cli import main
from reconciler.share.share import Share
from reconciler.store.store import Store
from tests.fakes.fleet import builds, fill, name_of, place_builds

FLEET = 30


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the records of a fleet, as on a machine where no daemon has built anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("GROUNDCREW_SHARE", str(tmp_path / "share"))
    monkeypatch.delenv("GROUNDCREW_CONFIG", raising=False)
    store = Store(f"sqlite:///{tmp_path / 'state' / 'groundcrew.db'}")
    fill(store, FLEET)
    store.close()
    return tmp_path


def test_an_unknown_name_lists_some_of_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """The message never lists a thousand of them."""
    assert main(["logs", "nosuch"]) == 2
    said = capsys.readouterr().err
    assert said.count("environment/") == 12
    assert said.endswith(f"and {FLEET - 12} more\n")


def test_a_log_is_found_on_the_share(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If another machine's daemon made the build; for a failed one the message says where."""
    place_builds(Share(root / "share"), 1)
    assert main(["logs", name_of(0)]) == 0
    assert capsys.readouterr().out == "resolved 3 packages\nverified\n"
    assert main(["logs", name_of(8)]) == 1
    said = capsys.readouterr().err
    assert f"{root}/state/logs/{builds(8)[0].key}.log is on the machine" in said


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["rollback", f"environment/{name_of(0)}"], 2, "rollback is for instance/NAME, not for"),
        (["suspend", name_of(0)], 2, "give one of these names"),
        (["plan", "--base", "main"], 2, "in a checkout of the environments repo, or name one"),
        (["gc", "--dry-run"], 3, "/share: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_says_what_to_do_instead(
    command: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message is one line, with the corresponding exit code."""
    assert main(command) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("url", ["svn://git.example/x.git", "no address", "https://a:b@c/x.git"])
def test_an_address_that_can_be_none_of_a_repo_is_misuse(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is neither unreachable nor a refusal of credentials."""
    monkeypatch.setenv("GROUNDCREW_GIT__URL", url)
    assert main(["plan"]) == 2
    assert "[SourceUnknown]" in capsys.readouterr().err
    assert main(["doctor", "git"]) == 1
    assert "write another address into git.url" in capsys.readouterr().out


def test_a_collection_leaves_no_watch_behind(root: Path) -> None:
    """It asks the clusters what still runs, and closes its connections to them."""
    Share(root / "share").prepare()
    main(["gc", "--dry-run"])
    deadline = time.monotonic() + 10
    while left := [t.name for t in threading.enumerate() if t.name.startswith("watch ")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("share = \n", "the settings file groundcrew.toml is not TOML: Invalid value"),
        (
            '[[notify.routes]]\nname = "s"\nkind = "webhook"\nchannel = "C1"\n',
            "  notify: only a route of kind slack has a channel: s\n",
        ),
    ],
    ids=["TOML", "section"],
)
def test_wrong_settings_say_where(
    text: str, words: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file by its name; a section without its contents."""
    (root / "groundcrew.toml").write_text(text)
    assert main(["status"]) == 2
    assert words in capsys.readouterr().err


def test_a_relative_share_is_refused_where_it_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the file at its line, not at that of a section's key of the same name; or by variable."""
    monkeypatch.setenv("GROUNDCREW_SHARE", "srv/share")
    assert main(["status"]) == 2
    message = "share: 'srv/share' is relative; write the absolute path at which Airflow sees it too"
    assert f"  {message}\n" in capsys.readouterr().err
    monkeypatch.delenv("GROUNDCREW_SHARE")
    text = 'prune_fraction = 0.4\nshare = "srv/share"\n[http]\nport = 70000\n'
    (root / "groundcrew.toml").write_text(text)
    assert main(["status"]) == 2
    shown = capsys.readouterr().err
    assert f"  groundcrew.toml:2: {message}\n" in shown
    assert "  groundcrew.toml:4: http.port (GROUNDCREW_HTTP__PORT) is 70000" in shown
