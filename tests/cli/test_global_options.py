"""Options of `groundcrew` itself work before and after the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from reconciler.cli import main
from reconciler.cli.app import app
from reconciler.cli.global_options import GLOBAL_OPTIONS, with_global_options_first

NOBODY = "http://127.0.0.1:9"  # nothing listens at this port


@pytest.mark.parametrize(
    ("arguments", "ordered"),
    [
        ("status dev --server URL", "--server URL status dev"),
        ("status --server=URL -o json", "--server=URL status -o json"),
        ("--server URL status", "--server URL status"),
        ("doctor --config a.toml", "--config a.toml doctor"),
        ("status --server", "status --server"),
        ("status --server --check", "status --server --check"),
        ("status -- --server URL", "status -- --server URL"),
        ("", ""),
    ],
)
def test_they_are_moved_before_the_command(arguments: str, ordered: str) -> None:
    assert with_global_options_first(arguments.split()) == ordered.split()


def test_no_command_has_an_option_of_the_same_name() -> None:
    """It could not be reached."""
    group = typer.main.get_command(app)
    own = {option for one in group.params for option in one.opts}
    assert own.issuperset(GLOBAL_OPTIONS)
    for command in group.commands.values():  # type: ignore[attr-defined]
        assert {o for one in command.params for o in one.opts}.isdisjoint(GLOBAL_OPTIONS)


def test_a_server_named_after_the_command_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GROUNDCREW_SERVER", "")  # restores what the command sets
    assert main(["status", "--server", NOBODY]) == 3
    assert f"{NOBODY} does not answer" in capsys.readouterr().err
    monkeypatch.delenv("GROUNDCREW_SERVER")
    monkeypatch.setenv("GROUNDCREW_CONFIG", "")
    assert main(["status", "--config", "missing.toml"]) == 2
    assert "there is no settings file missing.toml" in capsys.readouterr().err
