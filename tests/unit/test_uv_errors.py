"""The words of a failed resolution, and the places of requirements."""

from __future__ import annotations

import pytest

from reconciler.builder.resolve.uv_errors import name_of, place_of, without_hints
from reconciler.core.definitions import Place, Recipe, Requirement

FILE = "teams/red/one.yaml"
CONFLICT = """
  × No solution found when resolving dependencies:
  ╰─▶ Because you require alpha and beta depends on gamma>=2, we can conclude that your
      requirements are unsatisfiable.
"""


def recipe(*texts: str) -> Recipe:
    """Return a recipe with requirements at lines 7, 8 and so on."""
    return Recipe("x", tuple(Requirement(t, Place(FILE, n)) for n, t in enumerate(texts, 7)))


def test_the_resolvers_words_are_one_line_without_its_hints() -> None:
    """Its drawings, and options that no definition has, do not reach a message."""
    output = CONFLICT + "\n      hint: use `--prerelease=allow`\n      and more of it\n"
    message = without_hints(output)
    assert message.startswith("No solution found")
    assert message.endswith("your requirements are unsatisfiable.")
    assert not set("×╰─▶│\n") & set(message)
    assert without_hints("warning: `overrides.txt` is empty\nerror: no\n") == "no"
    plain = "error: No solution found\n  cause: Because a needs b, it fails.\n\nhint: try --x"
    assert without_hints(plain) == "No solution found Because a needs b, it fails."
    assert len(without_hints("because " * 100_000)) < 4000


@pytest.mark.parametrize(
    "text",
    ["Alpha_One", "alpha.one>=2", "alpha-one[x]; os_name=='a'", "alpha-one @ ./a", " alpha-one"],
)
def test_a_requirement_is_found_by_its_package(text: str) -> None:
    """However the requirement is written, its line is the package's place."""
    asked = recipe("alpha", text)
    assert place_of("alpha-one", asked) == Place(FILE, 8)
    assert name_of(asked.requirements[1])
    assert place_of("other", asked) == Place(FILE, 7)
    assert place_of("other", recipe()) is None
