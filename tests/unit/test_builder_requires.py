"""Requirements between packages: from the metadata of wheels to the SBOM, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.builder.manifest import Requirements, requirements_in, sbom
from reconciler.builder.resolve.choice import Wheel
from reconciler.builder.wheels.overlap import Facts
from reconciler.builder.wheels.requires import METADATA_LIMIT, declared, requirements_of
from reconciler.cli.sources.sbom import read_sbom
from reconciler.core.definitions import Place, Recipe, Requirement
from reconciler.core.errors import Stalled
from tests.fakes.fleet import RUNTIME


def metadata(site: Path, text: str) -> Path:
    folder = site / "alpha-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(text)
    return site


def test_requirements_are_read_from_the_head_of_the_metadata(tmp_path: Path) -> None:
    """A description may say anything, and is not read; nor is a line of any length."""
    text = (
        "Metadata-Version: 2.1\nName: alpha\nRequires-Dist: beta>=1\n"
        f'requires-dist: gamma; extra == "x"\nRequires-Dist: {"n" * 2000}\n\nRequires-Dist: none\n'
    )
    assert declared(metadata(tmp_path, text)) == ("beta>=1", 'gamma; extra == "x"')
    assert declared(tmp_path / "nothing") == ()


def test_metadata_of_any_size_costs_little(tmp_path: Path) -> None:
    """Only the first part of it is read."""
    text = "Requires-Dist: beta\n" * (METADATA_LIMIT // 10)
    assert len(declared(metadata(tmp_path, text))) == 2000


def test_markers_and_extras_decide_what_is_required() -> None:
    """An extra that nobody asks for requires nothing; one that another wheel asks for does."""
    wheels = {
        "alpha": [
            'beta[fast]>=1; python_version >= "3"',
            'old; python_version < "3"',
            "not valid !",
        ],
        "beta": ['gamma; extra == "fast"', 'delta; extra == "slow"', "base-1"],
        "gamma": [],
        "delta": [],
    }
    known = {*wheels, "base-1"}
    requested, required = requirements_of(wheels, ["Alpha", "none-such"], known, RUNTIME)
    assert requested == {"alpha"}
    assert required == {
        "alpha": {"beta"},
        "beta": {"gamma", "base-1"},
        "gamma": frozenset(),
        "delta": frozenset(),
    }


def facts(*requires: str) -> Facts:
    return Facts({}, pth=False, bin=False, requires=requires)


def test_an_sbom_says_what_requires_what() -> None:
    """Packages of the base are no components of it, and are named all the same."""
    recipe = Recipe(
        "d", requirements=(Requirement("alpha", Place("f")), Requirement("base-3", Place("f")))
    )
    known = requirements_in(recipe, RUNTIME, {"alpha": facts("beta"), "beta": facts("base-1<9")})
    assert known is not None
    wheels = [Wheel(name, "1.0", "x.whl", "c" * 64) for name in ("alpha", "beta")]
    requirements = read_sbom(sbom("0" * 16, wheels, known).encode())
    assert requirements is not None
    assert set(requirements.requested) == {"alpha", "base-3"}
    assert requirements.required == {"alpha": ("beta",), "beta": ("base-1",)}


def test_what_earlier_versions_made_says_nothing() -> None:
    """Neither an SBOM without requirements, nor a wheel that was placed without them."""
    wheels = [Wheel("alpha", "1.0", "x.whl", "c" * 64)]
    assert read_sbom(sbom("0" * 16, wheels).encode()) is None
    kept = replace(facts(), requires=None)
    assert requirements_in(Recipe("d"), RUNTIME, {"alpha": kept}) is None
    assert Facts.parse(kept.document()) == kept
    assert Facts.parse(facts("beta").document()) == facts("beta")
    with pytest.raises(Stalled, match=r"sbom\.cdx\.json is invalid"):
        read_sbom(b"{}")


def test_requirements_do_not_change_the_components() -> None:
    """Scanners see the same packages with the same hashes."""
    wheels = [Wheel(name, "1.0", "x.whl", "c" * 64) for name in ("alpha", "beta")]
    known = Requirements(frozenset({"alpha"}), {"alpha": frozenset({"beta", "base-1"})})
    with_them, without = (json.loads(sbom("0" * 16, wheels, k)) for k in (known, None))
    for one in with_them["components"]:
        one.pop("properties", None)
    assert with_them["components"] == without["components"]
