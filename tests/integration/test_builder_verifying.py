"""Verifying a build with the base's interpreter and the real loader: what stops it, and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.definitions import Checks, Place, Recipe
from reconciler.core.errors import Stalled
from tests.fakes.bench import FILE, Bench
from tests.fakes.wheels import make_wheel

OWN = "teams/red/packages/acme-own"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    # a path with /lib/ in it, as below /var/lib
    with Bench(tmp_path / "lib" / "groundcrew", {"acme-core": "2.0"}) as bench:
        yield bench


def verify(bench: Bench, recipe: Recipe) -> dict[str, object]:
    """Build and verify; what was seen."""
    job = bench.job()
    built = bench.build(recipe, job)
    verified = bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert bench.share.verified(built.build_id, bench.runtime.key)
    return dict(verified.report)


def refused(bench: Bench, recipe: Recipe) -> Stalled:
    """How the verification of a build fails; it is not marked as verified."""
    job = bench.job()
    built = bench.build(recipe, job)
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert caught.value.reason == "VerificationFailed"
    assert not bench.share.verified(built.build_id, bench.runtime.key)
    return caught.value


def test_a_sound_build_is_verified_and_counted(bench: Bench) -> None:
    """Its modules import beside the base's, and what the imports cost is reported."""
    own = bench.package(
        "acme-own", {"acme_own/__init__.py": "import acme_core\n", "acme_own/deep.py": ""}
    )
    report = verify(bench, bench.recipe(own))
    assert (report["modules"], report["warnings"]) == (2, [])


def test_a_verified_build_is_not_verified_again(bench: Bench) -> None:
    """The mark on the share is enough, also for another process."""
    make_wheel(bench.public.folder, "alpha")
    recipe = bench.recipe("alpha")
    built = bench.build(recipe)
    job = bench.job()
    for builder in (bench.builder, bench.make_builder()):
        builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert "was verified" in job.log.read_text()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import json\n\nimport not_there\n", 3, "No module named 'not_there'"),
        ("x = 1\ndef broken(:\n", 2, "SyntaxError"),
        ("\nraise SystemExit('not configured')\n", 2, "not configured"),
    ],
)
def test_an_import_failure_is_at_its_line_in_the_repo(
    bench: Bench, text: str, line: int, words: str
) -> None:
    """A module of an in-repo package that does not import is told by file and line."""
    own = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/deep/er.py": text})
    error = refused(bench, bench.recipe(own))
    assert error.place == Place(f"{OWN}/acme_own/deep/er.py", line)
    assert words in error.message


def test_an_import_failure_without_a_cache_is_at_its_package(bench: Bench) -> None:
    """A build that another machine made is verified here, and still has a place."""
    own = bench.package("acme-own", {"acme_own/__init__.py": "import not_there\n"})
    recipe = bench.recipe(own)
    built = bench.build(recipe)
    __import__("shutil").rmtree(bench.state / "cache")
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(bench.job(), recipe, bench.runtime, bench.instance(), built.build_id)
    assert caught.value.place == Place(OWN)


def test_a_third_party_module_that_does_not_import_is_at_its_requirement(bench: Bench) -> None:
    """The place is the line that asks for that very package, not for one whose name begins so."""
    make_wheel(bench.public.folder, "alphabet")
    make_wheel(bench.public.folder, "alpha", files={"alpha.py": "import not_there\n"})
    error = refused(bench, bench.recipe("alphabet", "Alpha>=1"))
    assert error.place == Place(FILE, 8)
    assert error.message.startswith("alpha does not import")


def test_a_broken_submodule_of_a_third_party_package_is_a_warning(bench: Bench) -> None:
    """Optional parts that need what is not installed are common, and no reason to stop."""
    broken = {"alpha/__init__.py": "", "alpha/extra.py": "import not_there\n"}
    make_wheel(
        bench.public.folder,
        "alpha",
        files={
            **broken,
            "alpha-1.0.dist-info/entry_points.txt": "[acme.things]\nx = alpha.extra\n",
        },
    )
    (warning,) = verify(bench, bench.recipe("alpha"))["warnings"]  # type: ignore[misc, attr-defined]
    assert "not_there" in warning


def test_an_airflow_plugin_that_does_not_load_stops_the_build(bench: Bench) -> None:
    """Airflow would load that entry point at its start."""
    points = "[airflow.plugins]\nacme = alpha.extra\n"
    files = {"alpha/__init__.py": "", "alpha-1.0.dist-info/entry_points.txt": points}
    make_wheel(bench.public.folder, "alpha", files=files)
    assert "entry point acme" in refused(bench, bench.recipe("alpha")).message


def test_a_declared_import_that_fails_is_found_in_the_right_package(bench: Bench) -> None:
    """Of several in-repo packages, the place is in the one whose line it is."""
    first = bench.package("acme-first", {"acme_first/__init__.py": ""})
    text = "import os\nif 'GROUNDCREW_BUILD' in os.environ:\n    assert 'never' in os.environ\n"
    second = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/_x.py": text})
    error = refused(bench, bench.recipe(first, second, checks=Checks(imports=("acme_own._x",))))
    assert error.place == Place(f"{OWN}/acme_own/_x.py", 3)
    missing = refused(bench, bench.recipe(first, checks=Checks(imports=("nothing_such",))))
    assert missing.place == Place(FILE, 7)


def test_a_declared_dag_that_does_not_parse_is_at_its_line(bench: Bench) -> None:
    """The team's smoke DAG is read by Airflow with the build, and its own line is named."""
    make_wheel(bench.public.folder, "alpha")
    dag = ("teams/red/dags/smoke.py", "import alpha\n\nalpha.nothing_such\n")
    error = refused(bench, bench.recipe("alpha", checks=Checks(dags=(dag,))))
    assert error.place == Place("teams/red/dags/smoke.py", 3)
    assert "nothing_such" in error.message


def test_only_what_the_build_breaks_is_held_against_it(bench: Bench) -> None:
    """A DAG that fails on the bare base too is known; one that fails with the build is not."""
    make_wheel(bench.public.folder, "alpha")
    dags = bench.root / "airflow" / "dags"
    dags.mkdir(parents=True)
    (dags / "always.py").write_text("import not_there\n")
    verify(bench, bench.recipe("alpha"))
    (dags / "new.py").write_text(
        "try:\n    import alpha\nexcept ImportError:\n    alpha = None\n"
        "if alpha:\n    alpha.nothing_such\n"
    )
    error = refused(bench, bench.recipe("alpha", env=(("AGAIN", "1"),)))
    assert "new.py parses on the base alone" in error.message


def test_imports_that_never_end_are_ended(bench: Bench) -> None:
    """The definition's own limit holds for what it asks to be verified."""
    own = bench.package("acme-own", {"acme_own/__init__.py": "import time\ntime.sleep(3600)\n"})
    error = refused(bench, bench.recipe(own, checks=Checks(timeout=1.0)))
    assert "took too long" in error.message


def test_a_build_that_is_gone_is_told_as_missing(bench: Bench) -> None:
    """Nothing is verified that is not whole on the share."""
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(bench.job(), bench.recipe(), bench.runtime, bench.instance(), "0" * 16)
    assert caught.value.reason == "BuildMissing"


def test_an_interpreter_without_airflow_is_no_base(bench: Bench, tmp_path: Path) -> None:
    """What cannot be inspected is told in words: no interpreter, no Airflow, no answer."""
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 3\n")
    silent.chmod(0o755)
    for python in (tmp_path / "bare/bin/python", tmp_path / "nothing", silent):
        with pytest.raises(Stalled) as caught:
            bench.builder.inspect(str(python))
        assert caught.value.reason == "BaseUnreadable"
        assert str(python) in caught.value.message
