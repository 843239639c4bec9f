"""Addresses as people see them, in messages, in logs and on pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from metrics.facts import plain
from reconciler.builder.build_job import BuildJob
from reconciler.core.addresses import shown


def logged(text: str) -> str:
    """Return the text as it appears in a build's log."""
    return BuildJob("key", "one", "red", "r1", Path("unused"), Event()).clean(text)


@pytest.mark.parametrize("say", [shown, logged, plain])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("https://s3cret@h.example/x", "https://***@h.example/x"),
        ("https://me:s3cret@h.example/x", "https://***@h.example/x"),
        ("https://me:pa/s3cret@h.example/x", "https://***@h.example/x"),
        ("https://me:s3@cret@h.example:80/x", "https://***@h.example:80/x"),
        ("ssh://git:s3cret@h.example/x", "ssh://***@h.example/x"),
        ("one @ git+https://me:s3cret@h.example/x", "one @ git+https://***@h.example/x"),
        ("a_https://s3cret@h.example/x", "a_https://***@h.example/x"),
        ("'https://a:s3cret@h' \"http://s3cret@i\"", "'https://***@h' \"http://***@i\""),
        ("https://h.example:8443/a@b.git", "https://h.example:8443/a@b.git"),
        ("ssh://git@h.example/x", "ssh://git@h.example/x"),
        ("one @ git+ssh://git@h.example/x", "one @ git+ssh://git@h.example/x"),
        ("git@h.example:x", "git@h.example:x"),
        ("file:///a@b", "file:///a@b"),
    ],
)
def test_no_password_is_shown(say: Callable[[str], str], words: str, told: str) -> None:
    """An ssh user is not masked, nor is a part of a path that looks like user info."""
    assert say(words) == told


@pytest.mark.parametrize("words", ["://a:b", "://a:b?", "://a" + ":" * 99, "ssh", "://a:x@/"])
def test_a_text_made_to_take_long_does_not(words: str) -> None:
    """A build may print anything, including a megabyte without a space."""
    before = time.process_time()
    shown(words * (1_000_000 // len(words)))
    assert time.process_time() - before < 5
