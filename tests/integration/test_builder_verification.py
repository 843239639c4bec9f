"""Verification of a build with the base's interpreter and the real loader."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.definitions import Checks, ImportLimit, Measure, Place, Recipe
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.share.hot import pack_path
from reconciler.share.packs import held, read_head
from tests.harness.builder import FILE, Bench
from tests.harness.wheels import make_wheel

OWN = "teams/red/packages/acme-own"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    # a path that contains /lib/, like those below /var/lib
    with Bench(tmp_path / "lib" / "groundcrew", {"acme-core": "2.0"}) as bench:
        yield bench


def verify(bench: Bench, recipe: Recipe) -> dict[str, Any]:
    """Build and verify; return the results."""
    job = bench.job()
    built = bench.build(recipe, job)
    verified = bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert bench.share.verified(built.build_id, bench.runtime.key)
    return dict(verified.report)


def refused(bench: Bench, recipe: Recipe) -> Stalled:
    """Return the error with which the verification fails; the build is not marked as verified."""
    job = bench.job()
    built = bench.build(recipe, job)
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert caught.value.reason == Reason.VERIFICATION_FAILED
    assert not bench.share.verified(built.build_id, bench.runtime.key)
    return caught.value


def test_a_sound_build_is_verified_and_counted(bench: Bench) -> None:
    """Its modules import beside the base's, and the cost of the imports is reported."""
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
    """A module of an in-repo package that does not import is reported with file and line."""
    own = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/deep/er.py": text})
    error = refused(bench, bench.recipe(own))
    assert error.place == Place(f"{OWN}/acme_own/deep/er.py", line)
    assert words in error.message


def test_an_import_failure_without_a_cache_is_at_its_package(bench: Bench) -> None:
    """A build of another machine is verified here, and the error still has a place."""
    own = bench.package("acme-own", {"acme_own/__init__.py": "import not_there\n"})
    recipe = bench.recipe(own)
    built = bench.build(recipe)
    __import__("shutil").rmtree(bench.state / "cache")
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(bench.job(), recipe, bench.runtime, bench.instance(), built.build_id)
    assert caught.value.place == Place(OWN)


def test_a_third_party_module_that_does_not_import_is_at_its_requirement(bench: Bench) -> None:
    """The place is the line that asks for that very package, not one with the same prefix."""
    make_wheel(bench.public.folder, "alphabet")
    make_wheel(bench.public.folder, "alpha", files={"alpha.py": "import not_there\n"})
    error = refused(bench, bench.recipe("alphabet", "Alpha>=1"))
    assert error.place == Place(FILE, 8)
    assert error.message.startswith("alpha does not import")


def test_a_broken_submodule_of_a_third_party_package_is_a_warning(bench: Bench) -> None:
    """Optional modules that need packages which are not installed are common, and no failure."""
    broken = {"alpha/__init__.py": "", "alpha/extra.py": "import not_there\n"}
    make_wheel(
        bench.public.folder,
        "alpha",
        files={
            **broken,
            "alpha-1.0.dist-info/entry_points.txt": "[acme.things]\nx = alpha.extra\n",
        },
    )
    (warning,) = verify(bench, bench.recipe("alpha"))["warnings"]
    assert "not_there" in warning


def test_an_airflow_plugin_that_does_not_load_stops_the_build(bench: Bench) -> None:
    """Airflow would load that entry point when it starts."""
    points = "[airflow.plugins]\nacme = alpha.extra\n"
    files = {"alpha/__init__.py": "", "alpha-1.0.dist-info/entry_points.txt": points}
    make_wheel(bench.public.folder, "alpha", files=files)
    assert "entry point acme" in refused(bench, bench.recipe("alpha")).message


def test_a_declared_import_that_fails_is_found_in_the_right_package(bench: Bench) -> None:
    """With several in-repo packages, the place is in the one that has the line."""
    first = bench.package("acme-first", {"acme_first/__init__.py": ""})
    text = "import os\nif 'GROUNDCREW_BUILD' in os.environ:\n    assert 'never' in os.environ\n"
    second = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/_x.py": text})
    error = refused(bench, bench.recipe(first, second, checks=Checks(imports=("acme_own._x",))))
    assert error.place == Place(f"{OWN}/acme_own/_x.py", 3)
    missing = refused(bench, bench.recipe(first, checks=Checks(imports=("nothing_such",))))
    assert missing.place == Place(FILE, 7)


def test_a_declared_dag_that_does_not_parse_is_at_its_line(bench: Bench) -> None:
    """Airflow parses the team's smoke DAG with the build; the message has the DAG's own line."""
    make_wheel(bench.public.folder, "alpha")
    dag = ("teams/red/dags/smoke.py", "import alpha\n\nalpha.nothing_such\n")
    error = refused(bench, bench.recipe("alpha", checks=Checks(dags=(dag,))))
    assert error.place == Place("teams/red/dags/smoke.py", 3)
    assert "nothing_such" in error.message


def test_only_what_the_build_breaks_is_held_against_it(bench: Bench) -> None:
    """DAGs that also fail on the bare base do not count; those that only fail with the build do."""
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


def test_a_broken_dag_hides_no_other_of_the_same_name(bench: Bench) -> None:
    """Files are identified by their path in the DAG folder, as a name may occur twice."""
    make_wheel(bench.public.folder, "alpha")
    guarded = "try:\n    import alpha\nexcept ImportError:\n    alpha = None\n"
    broken = {"one": "import not_there\n", "two": f"{guarded}if alpha:\n    alpha.nothing_such\n"}
    for folder, code in broken.items():
        (bench.root / "airflow" / "dags" / folder).mkdir(parents=True)
        (bench.root / "airflow" / "dags" / folder / "same.py").write_text(code)
    error = refused(bench, bench.recipe("alpha"))
    assert "two/same.py parses on the base alone" in error.message


def test_imports_that_never_end_are_ended(bench: Bench) -> None:
    """The definition's own time limit applies to what it asks to verify."""
    own = bench.package("acme-own", {"acme_own/__init__.py": "import time\ntime.sleep(3600)\n"})
    error = refused(bench, bench.recipe(own, checks=Checks(timeout=1.0)))
    assert "took too long" in error.message


# ------------------------------------------------------------------------------ the import budget


def limits(**most: float) -> Checks:
    """Return limits as they would be at lines 21, 22, … of the definition."""
    return Checks(
        budget=tuple(
            ImportLimit(Measure(name), value, Place(FILE, line, 9))
            for line, (name, value) in enumerate(most.items(), 21)
        )
    )


def heavy(bench: Bench) -> tuple[str, ...]:
    """Return two packages: one whose import reads 30 modules, and one of one module."""
    modules = {f"alpha/m{n}.py": "VALUE = 1\n" * 400 for n in range(30)}
    start = "".join(f"import alpha.m{n}\n" for n in range(30))
    make_wheel(bench.public.folder, "alpha", files={"alpha/__init__.py": start, **modules})
    make_wheel(bench.public.folder, "beta", files={"beta.py": "X = 1\n"})
    return "alpha", "beta"


def test_a_build_over_a_limit_is_refused_with_the_limits_line(bench: Bench) -> None:
    """The message has the limit, its place, the measured value and the largest parts."""
    recipe = bench.recipe(*heavy(bench), checks=limits(bytes=90_000.0, files=40.0))
    built, job = bench.build(recipe), bench.job()
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    error = caught.value
    assert (error.reason, error.place) == (Reason.IMPORT_BUDGET_EXCEEDED, Place(FILE, 21, 9))
    files = re.search(
        r"takes (\d+) files, and importBudget.files at \S+:22:9 allows 40 files", str(error)
    )
    assert files is not None, error
    assert int(files[1]) > 60, "each module and its bytecode"
    assert "importBudget.bytes at teams/red/one.yaml:21:9 allows 87.9 KiB" in error.message
    assert re.search(r"most of it by alpha \(\d+(\.\d+)? KiB\), beta", error.message)
    assert "raise the limit" in error.message
    assert error.message in job.log.read_text()
    assert bench.share.verified(built.build_id, bench.runtime.key)


def test_one_build_is_refused_for_one_environment_and_taken_by_another(bench: Bench) -> None:
    """The limit is the definition's: the build is the same, and its measured figures suffice."""
    wanted = heavy(bench)
    free = bench.recipe(*wanted)
    built = bench.build(free)

    def verify_by(checks: Checks) -> tuple[dict[str, Any], str]:
        recipe = bench.recipe(*wanted, checks=checks)
        assert bench.build(recipe).build_id == built.build_id
        job = bench.job("blue")
        args = (job, recipe, bench.runtime, bench.instance(), built.build_id)
        report = json.loads(json.dumps(dict(bench.builder.verify(*args).report)))
        return report, job.log.read_text()

    first, _ = verify_by(Checks())
    with pytest.raises(Stalled, match="allows 40 files"):
        verify_by(limits(files=40.0))
    again, log = verify_by(limits(files=500.0, opens=100_000.0, bytes=1e9, seconds=500.0))
    assert "was verified" in log
    assert {k: again[k] for k in first} == first
    (_, files, size), (name, *_) = again["packages"]
    assert (name, files + 2, size < again["bytes"]) == ("beta", again["files"], True)


def test_a_time_over_its_limit_is_measured_again_before_it_refuses(bench: Bench) -> None:
    """A single measurement on a busy machine does not refuse a build for ever."""
    recipe = bench.recipe(*heavy(bench), checks=limits(seconds=500.0))
    built = bench.build(recipe)
    args = (recipe, bench.runtime, bench.instance(), built.build_id)
    report = dict(bench.builder.verify(bench.job(), *args).report)
    bench.share.mark_verified(built.build_id, bench.runtime.key, {**report, "seconds": 900.0})
    job = bench.job()
    again = bench.builder.verify(job, *args).report
    assert again["seconds"] < 500  # type: ignore[operator]
    for steady in ("files", "opens", "bytes", "packages"):
        same = json.dumps(again[steady]) == json.dumps(report[steady])
        assert same, "from whole packs and from folders it is the same"
    assert "measured again" in job.log.read_text()
    slow = bench.recipe("alpha", "beta", checks=limits(seconds=1e-6))
    with pytest.raises(Stalled, match=r"importBudget\.time.*groundcrew retry"):
        bench.builder.verify(job, slow, *args[1:])


def test_a_mark_without_figures_is_no_pass(bench: Bench) -> None:
    """If a build was verified before imports were counted, they are measured on demand."""
    recipe = bench.recipe(*heavy(bench), checks=limits(files=40.0))
    built = bench.build(bench.recipe("alpha", "beta"))
    bench.share.mark_verified(built.build_id, bench.runtime.key, {"modules": 32, "seconds": 1.0})
    with pytest.raises(Stalled, match="allows 40 files"):
        bench.builder.verify(bench.job(), recipe, bench.runtime, bench.instance(), built.build_id)


def test_a_build_that_is_gone_is_told_as_missing(bench: Bench) -> None:
    """Only a build that is whole on the share is verified; the message says it is built again."""
    with pytest.raises(Retryable, match="it is built anew") as caught:
        bench.builder.verify(bench.job(), bench.recipe(), bench.runtime, bench.instance(), "0" * 16)
    assert caught.value.reason == Reason.BUILD_MISSING


def test_an_interpreter_without_airflow_is_no_base(bench: Bench, tmp_path: Path) -> None:
    """A failed inspection has a message: no interpreter, no Airflow, or no answer."""
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 3\n")
    silent.chmod(0o755)
    for python in (tmp_path / "bare/bin/python", tmp_path / "nothing", silent):
        with pytest.raises(Stalled) as caught:
            bench.builder.inspect(str(python))
        assert caught.value.reason == Reason.BASE_UNREADABLE
        assert str(python) in caught.value.message


def test_packages_of_a_namespace_are_imported(bench: Bench) -> None:
    """Their outermost packages are; errors there are warnings, and tests are skipped."""
    make_wheel(
        bench.public.folder,
        "corp-alpha",
        files={
            "corp/alpha/__init__.py": "from corp.alpha import deep\n",
            "corp/alpha/deep.py": "",
            "corp/alpha/rare.py": "raise RuntimeError('not asked for')\n",
            "corp/broken/__init__.py": "import not_there\n",
            "corp/_private/__init__.py": "raise RuntimeError('not public')\n",
            "tests/alpha/__init__.py": "raise RuntimeError('a test')\n",
        },
    )
    job, recipe = bench.job(), bench.recipe("corp-alpha")
    built = bench.build(recipe, job)
    verified = bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert verified.report["modules"] == 2
    warnings: Any = verified.report["warnings"]
    (warning,) = warnings
    assert "corp.broken" in warning
    (hot,) = verified.hot.values()
    assert {p for p in hot if p.endswith(".py")} == {
        f"lib/corp/{name}.py" for name in ("alpha/__init__", "alpha/deep", "broken/__init__")
    }


def test_what_parsing_dags_opens_is_packed_too(bench: Bench) -> None:
    """It is available locally where tasks run, but the import budget only counts imports."""
    make_wheel(
        bench.public.folder,
        "alpha",
        files={"alpha/__init__.py": "", "alpha/used.py": "", "alpha/cold.py": ""},
    )
    dag = ("teams/red/smoke.py", "import alpha.used\n")
    job, recipe = bench.job(), bench.recipe("alpha", checks=Checks(dags=(dag,)))
    built = bench.build(recipe, job)
    verified = bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    ((digest, pack),) = bench.share.packs(built.build_id).items()
    packed = held(read_head(pack_path(bench.share.entry(digest), pack.sha256))[1])
    assert "lib/alpha/used.py" in packed
    assert "lib/alpha/cold.py" not in packed
    (hot,) = verified.hot.values()
    assert "lib/alpha/used.py" not in hot
    assert verified.report["files"] == 2  # alpha/__init__.py and its bytecode
