"""The lines of a failed build that its message shows."""

from __future__ import annotations

import pytest

from reconciler.builder.build_output import causes

NOISE = ["gcc -c x.c -o x.o"] * 40
REASONS = [
    ["x.c:1:10: fatal error: acme.h: No such file or directory"],
    ["/bin/sh: 1: acme_config: not found"],
    ["/usr/bin/ld: cannot find -lacme: No such file or directory"],
    ["error[E0425]: cannot find value `x` in this scope"],
    ["CMake Error at CMakeLists.txt:3 (find_package):"],
    ['../meson.build:12:0: ERROR: Dependency "acme" not found, tried pkgconfig'],
    ["Exception: no acme here", "Set ACME_CFLAGS by hand"],
    ["acme.errors.ConfigError: no acme here", "Set ACME_CFLAGS by hand"],
]
WRAPPED = [
    "error: Failed to build `/work/x`",
    "  cause: The build backend returned an error",
    "hint: This usually indicates a problem with the package",
]


@pytest.mark.parametrize("reason", REASONS, ids=lambda lines: lines[0][:20])
def test_the_lines_that_say_why_come_first(reason: list[str]) -> None:
    """The resolver's wrapping is left out."""
    message = causes("\n".join([*NOISE, *reason, *NOISE, *WRAPPED]))
    assert message.splitlines()[: len(reason)] == reason
    assert "hint" not in message
    assert "/work/x" not in message
    assert len(message.splitlines()) < 20


def test_the_last_lines_are_shown_where_nothing_says_why() -> None:
    assert causes("\n".join([*NOISE, "giving up"])).endswith("giving up")
    assert causes("") == ""
    assert len(causes("x" * 1_000_000)) < 1000
