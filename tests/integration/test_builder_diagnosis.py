"""Causes of failed resolutions, found with real uv and real indexes: what is named, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.builder.resolve import diagnose
from reconciler.builder.resolve.resolver import NO_ANSWER, Question, Resolution, Resolver
from reconciler.core.definitions import Index, Place
from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.reasons import Reason
from tests.fakes.addresses import served
from tests.harness.builder import FILE, PASSWORD, USER, Bench
from tests.harness.wheels import make_sdist, make_wheel

BASE = "the base (Airflow 3.3.2)"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, {"core-lib": "2.0", "wire-format": "7.1", "http-lib": "2.3"}) as bench:
        for name, old in (("core-lib", "1.0"), ("wire-format", "6.4"), ("http-lib", "1.9")):
            make_wheel(bench.public.folder, name, old)
        make_wheel(bench.public.folder, "beta")
        yield bench


def refused(bench: Bench, *wanted: str, **more: object) -> GroundcrewError:
    """Return the refusal of a resolution; no message names an option of the resolver."""
    with pytest.raises(GroundcrewError) as caught:
        bench.lock(bench.recipe(*wanted, **more))
    assert "--" not in caught.value.message
    assert "hint" not in caught.value.message
    return caught.value


def test_all_pins_of_another_airflow_are_told_at_once(bench: Bench) -> None:
    """With what the base has, who needs it, and that it resolves without them."""
    error = refused(bench, "beta", "core-lib==1.0", "wire-format<7", "http-lib>=2")
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 8))
    for part in (
        f"`core-lib==1.0`, but {BASE} has core-lib 2.0 (apache-airflow needs core-lib>=2.0)",
        f"`wire-format<7`, but {BASE} has wire-format 7.1",
        "the rest resolves then",
    ):
        assert part in error.message
    assert "http-lib" not in error.message


def test_a_marker_that_does_not_hold_conflicts_with_nothing(bench: Bench) -> None:
    """A line for another Python is no cause."""
    error = refused(bench, "core-lib<2; python_version < '3'", "wire-format<7")
    assert error.place == Place(FILE, 8)
    assert "core-lib" not in error.message


def test_what_is_deep_in_the_tree_names_the_bases_package_and_who_needs_another(
    bench: Bench,
) -> None:
    """And no advice is given that would not help."""
    make_wheel(bench.public.folder, "middle", "3.2", requires=("wire-format>=6,<7",))
    make_wheel(bench.public.folder, "alpha", requires=("middle",))
    error = refused(bench, "beta", "alpha")
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 8))
    needed = "(apache-airflow needs wire-format>=7.1)"
    assert f"{BASE[1:]} has wire-format 7.1 {needed}, but" in error.message
    assert "middle 3.2 needs another version, such as 6.4" in error.message
    assert error.message.endswith("Without alpha the rest resolves")
    alone = refused(bench, "alpha")
    assert "middle 3.2 needs another version" in alone.message
    assert "resolves" not in alone.message


def test_a_version_that_would_fit_is_advised_when_it_does(bench: Bench) -> None:
    """A limit of the team that keeps it from a version for this base is told with that version."""
    make_wheel(bench.public.folder, "alpha", "1.0", requires=("wire-format<7",))
    make_wheel(bench.public.folder, "alpha", "2.0", requires=("wire-format>=7",))
    error = refused(bench, "beta", "alpha<2")
    assert error.message.endswith("With alpha==2.0 instead of alpha<2 it resolves")
    assert bench.names(bench.recipe("beta", "alpha==2.0"))


def test_direct_and_deep_conflicts_are_told_together(bench: Bench) -> None:
    """Whoever removes the pins would only meet the next conflict otherwise."""
    make_wheel(bench.public.folder, "alpha", requires=("wire-format<7",))
    error = refused(bench, "core-lib==1.0", "alpha")
    assert error.place == Place(FILE, 7)
    assert f"`core-lib==1.0`, but {BASE} has core-lib 2.0" in error.message
    assert "Take these versions out of the requirements. " in error.message
    assert "alpha 1.0 needs another version, such as 6.4" in error.message
    assert error.message.endswith("Besides that, without alpha the rest resolves")
    assert bench.names(bench.recipe("core-lib")) == ()


def test_a_constraints_file_of_another_airflow_is_named(bench: Bench) -> None:
    """The file, its lines, and what the base has; nothing is said while it is not in the way."""
    make_wheel(bench.public.folder, "alpha", requires=("core-lib",))
    path = "teams/red/frozen.txt"
    limits = ((path, "beta==1.0\nwire-format==6.4\ncore-lib==1.0"),)
    assert bench.names(bench.recipe("beta", constraints=limits)) == (("beta", "1.0"),)
    error = refused(bench, "alpha", constraints=limits)
    assert error.reason == Reason.RESOLUTION_CONFLICT
    assert f"the file {path} excludes versions that {BASE} has".lower() in error.message.lower()
    for part in ("`core-lib==1.0` (core-lib 2.0)", "`wire-format==6.4`", "the rest resolves then"):
        assert part in error.message
    assert "beta" not in error.message


def test_a_constraint_against_a_requirement_is_named(bench: Bench) -> None:
    """Also if the base has no part in it."""
    for version in ("1.0", "2.0"):
        make_wheel(bench.public.folder, "gamma", version)
    make_wheel(bench.public.folder, "alpha", requires=("gamma>=2",))
    error = refused(bench, "alpha", constraints=(("teams/red/c.txt", "beta<9\ngamma<2"),))
    assert "teams/red/c.txt excludes" in error.message
    assert "`gamma<2` (2.0 would be chosen without it)" in error.message


def test_requirements_against_each_other_are_listed(bench: Bench) -> None:
    """Those without one of which the rest resolves, and no other."""
    for version in ("1.0", "2.0"):
        make_wheel(bench.public.folder, "gamma", version)
    make_wheel(bench.public.folder, "alpha", requires=("gamma<2",))
    error = refused(bench, "beta", "alpha", "gamma>=2")
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 8))
    assert "without one of alpha, gamma>=2 the rest resolves" in error.message


# -------------------------------------------------------------------------------- without much time


@pytest.fixture
def deep(bench: Bench) -> Bench:
    """Bench on which `alpha` needs another version of a package of the base."""
    make_wheel(bench.public.folder, "middle", "3.2", requires=("wire-format>=6,<7",))
    make_wheel(bench.public.folder, "alpha", requires=("middle",))
    return bench


def answering(patch: pytest.MonkeyPatch, number: int) -> list[Question]:
    """Let the resolver answer so many questions of a diagnosis; return those that it was asked."""
    asked: list[Question] = []
    ask = Resolver.ask

    def limited(self: Resolver, question: Question, timeout: float) -> Resolution:
        asked.append(question)
        return ask(self, question, timeout) if len(asked) <= number else Resolution(NO_ANSWER)

    patch.setattr(Resolver, "ask", limited)
    return asked


def test_without_time_to_ask_the_base_and_the_requirement_are_named(
    deep: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the output of the run that failed; its warnings and its own sentences are in the log."""
    monkeypatch.setattr(diagnose, "BUDGET", 0)
    monkeypatch.setattr(diagnose, "BUDGET_FACTOR", 0)
    asked = answering(monkeypatch, 0)
    error = refused(deep, "beta", "alpha>=1")
    assert asked == []
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 8))
    assert error.message.startswith(
        f"`alpha>=1` cannot be resolved; in the way: {BASE} has wire-format 7.1 "
        "(apache-airflow needs wire-format>=7.1). Ask for versions that take what the base has"
    )
    assert "No solution" not in error.message


def test_the_first_question_finds_the_packages_of_the_base(
    deep: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer without the base's versions says what is in the way; no advice is made up."""
    asked = answering(monkeypatch, 1)
    error = refused(deep, "beta", "alpha")
    assert not asked[0].base
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 8))
    assert "has wire-format 7.1 (apache-airflow needs wire-format>=7.1)" in error.message
    assert "middle 3.2 needs another version, such as 6.4" in error.message
    assert "no time to find out which change helps: ask for versions of alpha" in error.message
    assert "resolves" not in error.message


def test_a_first_run_that_took_too_long_names_the_base_as_well(bench: Bench) -> None:
    """It may have taken so long because nothing fits the base."""
    bench.builder = bench.make_builder(resolve_timeout=0.001)
    error = refused(bench, "beta", "core-lib==1.0")
    assert (error.reason, error.place) == (Reason.RESOLVE_TIMEOUT, Place(FILE, 8))
    assert "no solution was found within 0 s" in error.message.lower()
    assert f"`core-lib==1.0`, but {BASE} has core-lib 2.0" in error.message


def test_a_diagnosis_reads_each_page_once(deep: Bench) -> None:
    """All of its questions read the same pages, and the resolver prints no warning of ours."""
    refused(deep, "beta", "alpha")
    before = len(deep.public.asked)
    job = deep.job()
    with pytest.raises(GroundcrewError):
        deep.lock(deep.recipe("beta", "alpha"), job)
    pages = [path for path in deep.public.asked[before:] if path.startswith("/simple/alpha")]
    assert len(pages) <= 3, "for the run that failed, for all questions, and for what it has"
    assert "warning" not in job.log.read_text()


# ------------------------------------------------------------------------------------- the indexes


def test_every_name_that_is_not_there_is_told(bench: Bench) -> None:
    """Misspelt ones, all at once."""
    error = refused(bench, "beta", "pandsa", "nunpy>=1")
    assert (error.reason, error.place) == (Reason.NOT_FOUND, Place(FILE, 8))
    assert "pandsa (index default), nunpy (index default)" in error.message


def test_a_needed_name_that_is_not_there_is_told_at_who_needs_it(bench: Bench) -> None:
    """One that an unused alternative would need is no cause."""
    make_wheel(bench.public.folder, "alpha", requires=("middle",))
    make_wheel(bench.public.folder, "middle", requires=("nowhere",))
    error = refused(bench, "beta", "alpha")
    assert (error.reason, error.place) == (Reason.NOT_FOUND, Place(FILE, 8))
    assert "nowhere is not found on its index, needed by alpha" in error.message


def test_a_needed_sdist_is_told_at_who_needs_it(bench: Bench) -> None:
    """As is what has no wheel, further down."""
    make_wheel(bench.public.folder, "alpha", requires=("delta",))
    make_sdist(bench.public.folder, "delta")
    error = refused(bench, "beta", "alpha")
    assert (error.reason, error.place) == (Reason.SOURCE_BUILD_REFUSED, Place(FILE, 8))
    assert "delta is on its index as an sdist only, needed by alpha" in error.message
    assert error.message.endswith("to have it built, write `sourceBuilds: [delta]` in `spec`")
    allowed = bench.recipe("beta", "alpha", source_builds=("delta",))
    assert ("delta", "1.0") in bench.build(allowed).packages, "the advice is what makes it work"


OFFERS = [
    ("gamma>=7", "NotFound", "its versions go from 1.0 to 2.0"),
    ("old==5", "SourceBuildRefused", "old 5 has no wheel for cp311"),
    ("old>=5", "SourceBuildRefused", "no sdist either; choose 4.0"),
    ("young", "ResolutionConflict", "young 1.0 needs Python >=3.99"),
]


@pytest.mark.parametrize(("wanted", "reason", "words"), OFFERS)
def test_what_an_index_has_is_said(bench: Bench, wanted: str, reason: str, words: str) -> None:
    """Versions, and files for other Pythons and platforms."""
    for version in ("1.0", "2.0", "3.0rc1"):
        make_wheel(bench.public.folder, "gamma", version)
    make_wheel(bench.public.folder, "old", "4.0")
    make_wheel(bench.public.folder, "old", "5", tag="cp27-cp27m-win32")
    pages = {
        "/simple/young/": f'<a href="{bench.public.url}../y/young-1.0-py3-none-any.whl" '
        'data-requires-python=">=3.99">young</a>'
    }
    with served(pages) as index:
        bench.builder = bench.make_builder(allow_hosts=[index.host])
        indexes = (Index("new", f"{index.url}/simple/", ("young",)),)
        error = refused(bench, "beta", wanted, indexes=indexes)
    assert (error.reason, error.place) == (reason, Place(FILE, 8))
    assert isinstance(error, Stalled)
    assert words in error.message


@pytest.mark.parametrize("secret", [None, "corp"])
def test_a_name_that_is_forbidden_is_missing_unless_credentials_are_refused(
    bench: Bench, secret: str | None
) -> None:
    """Some indexes answer 403 for what they lack."""
    with served(missing=403) as index:
        bench.builder = bench.make_builder(allow_hosts=[index.host])
        corp = Index("corp", f"{index.url}/simple/", ("acme-*",), secret)
        error = refused(bench, "beta", "acme-tools", indexes=(corp,))
        assert error.reason == (Reason.INDEX_DENIED if secret else Reason.NOT_FOUND)
        assert error.place == Place(FILE, 8)
        index.pages["/simple/acme-other/"] = '<a href="/acme_other-1.0-py3-none-any.whl">x</a>'
        again = refused(bench, "acme-other", "acme-tools", indexes=(corp,))
        assert (again.reason, again.place) == (Reason.NOT_FOUND, Place(FILE, 8))
        assert PASSWORD not in again.message
        assert USER not in again.message


def test_a_failure_that_is_gone_when_asked_again_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver's own trouble is no mistake of the team."""
    run = type(bench.builder._executor).run
    ends = iter([2])

    def failing(*words: object, **more: object) -> object:
        ended = run(*words, **more)  # type: ignore[arg-type]
        return replace(ended, code=next(ends, ended.code))

    monkeypatch.setattr(type(bench.builder._executor), "run", failing)
    error = refused(bench, "beta")
    assert error.reason == Reason.INDEX_UNREACHABLE
    assert not isinstance(error, Stalled)
