"""Meaning of a failed resolution, derived from uv's output."""

from __future__ import annotations

import pytest

from reconciler.builder.explain import explain, name_of, place_of
from reconciler.core.definitions import Place, Recipe, Requirement
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.runtime import Distribution, Runtime

FILE = "teams/red/one.yaml"
RUNTIME = Runtime(
    "key", "/python", "3.11.7", "cp311", "linux_x86_64", "3.3.2", (),
    (Distribution("flask", "2.2.5"), Distribution("odd", "not-a-version")),
)  # fmt: skip
CONFLICT = """
  × No solution found when resolving dependencies:
  ╰─▶ Because you require alpha and beta depends on gamma>=2, we can conclude that your
      requirements are unsatisfiable.
"""


def recipe(*texts: str) -> Recipe:
    """Return a recipe with requirements at lines 7, 8 and so on."""
    return Recipe("x", tuple(Requirement(t, Place(FILE, n)) for n, t in enumerate(texts, 7)))


@pytest.mark.parametrize(
    ("output", "kind", "reason"),
    [
        (CONFLICT, Stalled, "ResolutionConflict"),
        ("× Because alpha was not found in the package registry …", Stalled, "NotFound"),
        (
            "× Because alpha==1 has no wheels with a matching Python …",
            Stalled,
            "SourceBuildRefused",
        ),
        ("× Because alpha has no usable wheels …", Stalled, "SourceBuildRefused"),
        ("error: Failed to fetch: `https://…/alpha/`", Retryable, "IndexUnreachable"),
        ("error: operation timed out", Retryable, "IndexUnreachable"),
        ("error: 503 Service Unavailable", Retryable, "IndexUnreachable"),
        ("", Stalled, "ResolutionConflict"),
    ],
)
def test_uvs_words_have_a_kind_and_a_reason(output: str, kind: type, reason: str) -> None:
    """Errors that resolve by themselves are retried, those that a person has to correct are not."""
    error = explain(output, recipe("alpha"), RUNTIME, {})
    assert type(error) is kind
    assert error.reason == reason


def test_the_drawing_is_taken_out_of_the_words() -> None:
    """Lines, crosses and arrows of a terminal do not get into a message."""
    error = explain(CONFLICT, recipe("alpha"), RUNTIME, {})
    assert error.message.startswith("No solution found")
    assert "your requirements are unsatisfiable." in error.message
    assert not set("×╰─▶│\n") & set(error.message)


def test_the_first_requirement_that_is_named_is_blamed() -> None:
    """It is the first one in the text, whatever the order of the file."""
    assert explain(CONFLICT, recipe("beta>1", "Alpha[x]>=1"), RUNTIME, {}).place == Place(FILE, 8)


def test_a_name_within_a_name_is_not_blamed() -> None:
    """`alpha` is not `alpha-core`, nor `my-alpha`."""
    output = "× Because alpha-core and my-alpha exclude each other …"
    assert explain(output, recipe("alpha", "alpha_core"), RUNTIME, {}).place == Place(FILE, 8)


def test_a_pin_against_the_base_is_told_as_such() -> None:
    """Requiring another version of a package in the base is the conflict that people understand."""
    error = explain("× Because …", recipe("alpha", "flask>=3"), RUNTIME, {})
    assert error.place == Place(FILE, 8)
    assert "the base (Airflow 3.3.2) has flask 2.2.5" in error.message


def test_a_base_with_an_unreadable_version_explains_too() -> None:
    """A broken version in the base is ignored."""
    assert explain("× …", recipe("odd>=1"), RUNTIME, {}).reason == "ResolutionConflict"


def test_denied_credentials_come_before_everything() -> None:
    """The resolver only says that it found nothing; the index that denied access is the reason."""
    error = explain("× alpha was not found because …", recipe("alpha"), RUNTIME, {"alpha": "corp"})
    assert (error.reason, error.place) == ("IndexDenied", Place(FILE, 7))
    assert "corp" in error.message


def test_a_package_of_sdists_only_says_what_to_do() -> None:
    """It is refused only if the text is about it."""
    found = explain("× Because delta was not found …", recipe("delta"), RUNTIME, {}, ["delta"])
    assert found.reason == "SourceBuildRefused"
    other = explain("× Because alpha was not found …", recipe("alpha"), RUNTIME, {}, ["delta"])
    assert other.reason == "NotFound"


def test_words_have_a_limit() -> None:
    """An explanation of megabytes is shortened to a readable one."""
    assert len(explain("× " + "because " * 100_000, recipe(), RUNTIME, {}).message) < 4000


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
