"""Lines of a preview about a definition: whatever determines a build has one."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from reconciler.cli.preview.comparison import _lines
from reconciler.core.definitions import (
    Checks,
    FileItem,
    ImportLimit,
    Index,
    Measure,
    Place,
    Recipe,
    Requirement,
    SourcePackage,
)

HERE = Place("teams/red/one.yaml", 6)
CORP = Index("corp", "https://h.example/simple/", ("acme-*",))
OWN = Recipe(
    "",
    (Requirement("own", HERE, "teams/red/own"),),
    packages=(SourcePackage("own", "teams/red/own", "1" * 40, HERE),),
)
LIMIT = ImportLimit(Measure.SECONDS, 5.0, HERE)
CHANGES = [
    ("requirements", Recipe(""), Recipe("", (Requirement("humanize", HERE),)), "+ humanize"),
    ("constraints", Recipe(""), Recipe("", constraints=(("c.txt", "a<2"),)), "+ a<2 (c.txt)"),
    (
        "packages",
        OWN,
        replace(OWN, packages=(replace(OWN.packages[0], tree="2" * 40),)),
        "+ own (source 2222222222)",
    ),
    ("indexes", Recipe(""), Recipe("", indexes=(CORP,)), "+ index corp https://h.example/simple/"),
    (
        "indexes",
        Recipe("", indexes=(CORP,)),
        Recipe("", indexes=(replace(CORP, credentials="key"),)),
        "with the secret key",
    ),
    (
        "indexes",
        Recipe("", indexes=(CORP,)),
        Recipe("", indexes=(replace(CORP, ca_bundle="x"),)),
        "trusting",
    ),
    ("source_builds", Recipe(""), Recipe("", source_builds=("a",)), "+ source build of a"),
    (
        "files",
        Recipe(""),
        Recipe("", files=(FileItem("0" * 64, url="https://h/x", path="bin/x"),)),
        "+ file https://h/x 000000000000 at bin/x, mode 644",
    ),
    ("env", Recipe(""), Recipe("", env=(("A", "1"),)), "+ env A=1"),
    (
        "build_constraints",
        Recipe(""),
        Recipe("", build_constraints=("setuptools<80",)),
        "+ build requirement setuptools<80",
    ),
    (
        "hashes",
        Recipe(""),
        Recipe("", hashes=(("a", ("1" * 64,)),)),
        "+ a with the hash sha256:111111111111",
    ),
    ("build_env", Recipe(""), Recipe("", build_env=(("CFLAGS", "-O0"),)), "+ build env CFLAGS=-O0"),
    ("checks", Recipe(""), Recipe("", checks=Checks(imports=("a",))), "+ check that a imports"),
    ("checks", Recipe(""), Recipe("", checks=Checks(exclude=("a.*",))), "+ check without a.*"),
    ("checks", Recipe(""), Recipe("", checks=Checks(dags=(("d.py", "x"),))), "+ check DAG d.py"),
    ("checks", Recipe(""), Recipe("", checks=Checks(timeout=9.0)), "+ check within 9 s"),
    (
        "checks",
        Recipe(""),
        Recipe("", checks=Checks(budget=(LIMIT,))),
        f"+ check that {Measure.SECONDS.key} is at most 5",
    ),
]


@pytest.mark.parametrize(("field", "before", "after", "line"), CHANGES)
def test_a_change_of_a_definition_is_shown(
    field: str, before: Recipe, after: Recipe, line: str
) -> None:
    """With what was there before where it was replaced."""
    assert getattr(before, field) != getattr(after, field)
    assert line in "\n".join(_lines(before, after))
    assert _lines(after, after) == ()


def test_no_part_of_a_definition_is_left_out() -> None:
    """A new key needs a line, or its change would build again with no word why."""
    silent = {"digest", "internal"}
    assert {one.name for one in fields(Recipe)} == silent | {change[0] for change in CHANGES}
    checks = {one.name for one in fields(Checks)}
    given = [change[2].checks for change in CHANGES if change[0] == "checks"]
    assert checks == {n for n in checks for one in given if getattr(one, n) != getattr(Checks(), n)}
