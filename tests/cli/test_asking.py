"""Output of `--wait` for a request, derived from the history."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from reconciler.cli.asking import _say_end
from reconciler.cli.failing import Exit
from reconciler.core.model import Change, Event
from reconciler.store.store import Store


def history(tmp_path: Path, *events: Event) -> Store:
    """Return a store with these events."""
    store = Store(f"sqlite:///{tmp_path}/db")
    store.migrate()
    lease = store.acquire("me", 60)
    assert lease is not None
    store.write(lease, Change(events=events))
    return store


def refusal(request: int, words: str) -> Event:
    data = {"request": request, "who": "someone"}
    return Event(1.0, "RequestRefused", "repo", "", "RequestRefused", words, data=data)


def test_a_request_was_refused_whatever_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 and the reason; the sentence need not name the verb."""
    with pytest.raises(typer.Exit) as ended:
        _say_end(history(tmp_path, refusal(7, "not now")), 7, "", "confirm-prune", 0)
    assert ended.value.exit_code == Exit.WRONG
    assert "confirm-prune: refused: not now" in capsys.readouterr().err


def test_the_refusal_of_another_request_is_not_this_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two people make the same request at once."""
    _say_end(history(tmp_path, refusal(6, "confirm-prune: no")), 7, "", "confirm-prune", 0)
    assert "confirm-prune: done" in capsys.readouterr().out
