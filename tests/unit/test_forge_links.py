"""Links to the forge: made from a setting, and never led elsewhere by the environments repo."""

from __future__ import annotations

import pytest

from metrics.commits import file_url_of
from reconciler.api.pages.forge_links import file_link
from reconciler.core.definitions import Place

TEMPLATE = "https://git.example/envs/src/{revision}/{path}?at={revision}#L{line}"


@pytest.mark.parametrize(
    ("git_url", "forge", "template"),
    [
        (
            "https://github.com/acme/envs.git",
            "",
            "https://github.com/acme/envs/blob/{revision}/{path}#L{line}",
        ),
        (
            "git@code.example:data/envs.git",
            "gitlab",
            "https://code.example/data/envs/-/blob/{revision}/{path}#L{line}",
        ),
        ("https://git.example/envs.git", "", ""),
        ("file:///srv/envs", "", ""),
    ],
)
def test_a_known_forge_needs_no_setting(git_url: str, forge: str, template: str) -> None:
    """The pages of files are derived from the repo's URL, as those of commits are."""
    assert file_url_of(git_url, forge) == template


def test_the_link_names_file_line_and_commit() -> None:
    """A position without a line leads to the first one."""
    page = "https://git.example/envs/src/c0ffee/teams/a/b%20c.yaml?at=c0ffee"
    assert file_link(TEMPLATE, "c0ffee", Place("teams/a/b c.yaml", 7)) == f"{page}#L7"
    assert file_link(TEMPLATE, "c0ffee", Place("teams/a/b c.yaml")) == f"{page}#L1"


@pytest.mark.parametrize("file", ["../../evil", "/etc/x", "a//b", "a/./b", "", "a/.."])
def test_a_path_cannot_leave_the_project(file: str) -> None:
    """A browser would resolve dots to another project of the same forge."""
    assert file_link(TEMPLATE, "c0ffee", Place(file, 1)) == ""


def test_a_path_is_only_a_path() -> None:
    """Characters with a meaning in URLs or HTML, and names of the template, are quoted."""
    link = file_link(TEMPLATE, "c0ffee", Place('a?b#c"<{line}>', 1))
    assert link == ("https://git.example/envs/src/c0ffee/a%3Fb%23c%22%3C%7Bline%7D%3E?at=c0ffee#L1")


@pytest.mark.parametrize("template", ["", "javascript:alert(1)//{path}", "http://a/{path}"])
def test_only_https_becomes_a_link(template: str) -> None:
    """Any other scheme in the setting makes no link."""
    assert file_link(template, "c0ffee", Place("a.yaml", 1)) == ""
