"""The check of names and docstrings, by good and bad examples."""

from pathlib import Path

import pytest

from scripts import prose


def rules(text: str, file: str = "reconciler/resolver.py") -> list[str]:
    """Return the rules that a module breaks."""
    return [finding.rule for finding in prose.check_module(file, text)]


@pytest.mark.parametrize(
    "docstring",
    [
        "Whom HTTPS trusts.",
        "What a build needs.",
        "How long a wait may take.",
        "Is the pod ready.",
        "May nobody else have put code there.",
        "Does the copy stand?",
        "The copy stands?",
        "Which builds there are:\n\n    More about them.",
    ],
)
def test_docstrings_that_open_like_a_question_are_found(docstring: str) -> None:
    assert rules(f'def f():\n    """{docstring}"""\n') == ["docstring"]
    assert rules(f'class C:\n    """{docstring}"""\n') == ["docstring"]
    assert rules(f'"""{docstring}"""\n') == ["docstring"]


@pytest.mark.parametrize(
    "docstring",
    [
        "Return the pinned build, or None.",
        "Return True if the pod is ready.",
        "Client for Airflow's REST API.",
        "Wheels and what they contain.",  # a word in the middle opens nothing
        "Isolate a command.\n\n    Is used by builds.",  # only the opening counts
        "Howitzer.",  # a word that only begins like one
    ],
)
def test_plain_docstrings_pass(docstring: str) -> None:
    assert rules(f'def f():\n    """{docstring}"""\n') == []


@pytest.mark.parametrize("name", ["looking", "rooms", "builder_constructing", "errands"])
def test_module_names_that_name_no_thing_are_found(name: str) -> None:
    assert rules("", f"reconciler/{name}.py") == ["module"]


@pytest.mark.parametrize("name", ["resolver", "ring", "string", "test_outgoing", "__init__"])
def test_module_names_that_are_nouns_pass(name: str) -> None:
    assert rules("", f"reconciler/{name}.py") == []


def test_locals_that_say_nothing_are_found_and_others_are_not() -> None:
    assert rules("found = 1\nfor words in x: pass\nplace, rest = x\n") == ["local"] * 3
    assert rules("wheels = 1\nx.found = 2\nprint(found)\n") == []


def test_code_that_is_kept_from_the_formatter_is_found() -> None:
    """The mark is put together here, so that this file is not a finding itself."""
    for mark in ("skip", "off"):
        assert rules(f"x = [1,  2]  # fmt: {mark}\n") == ["format"]
    assert rules("x = [1, 2]  # the format: skip nothing\n") == []


def test_a_finding_says_where_it_is() -> None:
    (finding,) = prose.check_module("a/wheel.py", '\n\ndef f():\n    """Is it so."""\n')
    assert str(finding).startswith("a/wheel.py:4: docstring: the docstring opens with `Is`")


def test_headings_and_cells_that_open_with_a_pronoun_are_found() -> None:
    text = (
        "# Who may read\n\n| setting | meaning |\n|---|---|\n| a | Whose it is |\n| b | Owner |\n"
    )
    lines = [finding.line for finding in prose.check_page("docs/a.md", text)]
    assert lines == [1, 5]
    assert not list(prose.check_page("docs/a.md", "# Owners\n```\n# Whose code is this\n```\n"))


def test_an_exemption_covers_its_file_and_rule_only() -> None:
    findings = [
        prose.Finding("a.py", 1, "local", "old"),
        prose.Finding("a.py", 1, "docstring", "new"),
        prose.Finding("b.py", 1, "local", "new"),
    ]
    exemptions = prose.parse_exemptions("a.py: local module\n")
    open_findings, needed = prose.judge(findings, exemptions)
    assert [f.message for f in open_findings] == ["new", "new"]
    assert needed == {"a.py": frozenset({"local"})}


def test_exemptions_are_read_as_they_are_written() -> None:
    text = "a.py: docstring local\nb.md: heading\n"
    assert prose.format_exemptions(prose.parse_exemptions(text)) == text


def test_the_check_fails_for_a_finding_and_for_an_exemption_without_need(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "metrics").mkdir()
    module = tmp_path / "metrics" / "gauges.py"
    module.write_text('"""What is measured."""\n')
    exemptions = tmp_path / "exempt.txt"
    exemptions.write_text("")
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "EXEMPTIONS", exemptions)
    assert prose.main([]) == 1
    assert "metrics/gauges.py:1: docstring" in capsys.readouterr().out
    exemptions.write_text("metrics/gauges.py: docstring\n")
    assert prose.main([]) == 0
    module.write_text('"""Measurements."""\n')
    assert prose.main([]) == 1
    assert "exempt without need" in capsys.readouterr().out
    assert prose.main(["--write-exemptions"]) == 0
    assert exemptions.read_text() == ""
