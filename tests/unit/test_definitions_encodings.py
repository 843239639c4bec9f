"""Text files of the environments repo as editors on any system save them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from gitsource.validate import validate
from tests.harness.git_repo import NOWHERE as ENVIRONMENT

CONSTRAINED = ENVIRONMENT.rstrip("\n") + "\n  constraints: [constraints.txt]\n"
DEFINITION = "teams/red/one.yaml"
CONSTRAINTS = "teams/red/constraints.txt"
OTHERS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def write(repo: Path, definition: bytes, constraints: bytes) -> None:
    """Write an environment and its constraints file."""
    (repo / DEFINITION).parent.mkdir(parents=True)
    (repo / DEFINITION).write_bytes(definition)
    (repo / CONSTRAINTS).write_bytes(constraints)


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_crlf_change_nothing(
    tmp_path: Path, mark: bytes, newline: str
) -> None:
    """The mark and the line ends of Windows editors are not part of the text."""
    texts = (CONSTRAINED, "numpy<2\n# pinned\npandas<3\n")
    write(tmp_path, *(mark + text.replace("\n", newline).encode() for text in texts))
    definitions, findings = validate(tmp_path)
    assert findings == []
    constraints = definitions.environments["one"].recipe.constraints
    assert constraints == ((CONSTRAINTS, "numpy<2\npandas<3"),)


@pytest.mark.parametrize("encoding", OTHERS)
def test_another_encoding_of_a_definition_is_named(tmp_path: Path, encoding: str) -> None:
    """The message names it at the file's first line, with or without a byte order mark."""
    write(tmp_path, CONSTRAINED.encode(encoding), b"")
    _, [finding] = validate(tmp_path)
    assert (finding.place.file, finding.place.line) == (DEFINITION, 1)
    assert f"{encoding[:6].upper()} text; save the file as UTF-8" in finding.message


@pytest.mark.parametrize("encoding", OTHERS)
def test_another_encoding_of_a_constraints_file_is_named(tmp_path: Path, encoding: str) -> None:
    """The finding is at the entry that names the file, and gives the file and line."""
    write(tmp_path, CONSTRAINED.encode(), "numpy<2\n".encode(encoding))
    _, [finding] = validate(tmp_path)
    assert finding.place.file == DEFINITION
    assert f"{CONSTRAINTS}:1 is {encoding[:6].upper()} text" in finding.message


def test_the_line_of_a_byte_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    """A Latin-1 letter in a comment is found by its line."""
    write(tmp_path, CONSTRAINED.encode(), b"numpy<2\n# f\xfcr\n")
    _, [finding] = validate(tmp_path)
    assert f"{CONSTRAINTS}:2 is not UTF-8 text" in finding.message
