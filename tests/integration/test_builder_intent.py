"""Verification of builds that import: whether they are what was meant, and fit the instance."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.builder.verify.report import Report
from reconciler.core.definitions import Checks, FileItem, Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.daemon.deviations import base_of
from reconciler.documents import Malformed, parse
from tests.fakes.answers import Answers
from tests.harness.builder import FILE, Bench
from tests.harness.wheels import make_wheel

OWN = "teams/red/packages/acme-own"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 5242880\n"
TEMPLATE = 'with DAG("{{ dag_id }}", schedule={{ schedule }}):\n    pass\n'


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, {"acme-core": "2.0"}) as bench:
        yield bench


def verify(bench: Bench, recipe: Recipe) -> list[Any]:
    """Build and verify; return the warnings."""
    job = bench.job()
    built = bench.build(recipe, job)
    verified = bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    warnings: Any = verified.report["warnings"]
    return list(warnings)


def refused(bench: Bench, recipe: Recipe) -> Stalled:
    """Return the error with which the verification of a build fails."""
    with pytest.raises(Stalled) as caught:
        verify(bench, recipe)
    assert caught.value.reason == Reason.VERIFICATION_FAILED
    return caught.value


# ----------------------------------------------------------------------------- shadowed modules


@pytest.mark.parametrize(
    "files",
    [
        {"acme_core.py": "X = 1\n"},
        {"acme_core/__init__.py": "X = 1\n"},
        {"good.py": "", "acme_core.py": "X = 1\n"},
    ],
)
def test_a_module_that_the_base_has_too_is_refused(bench: Bench, files: dict[str, str]) -> None:
    """The base's module would be loaded: the message names both distributions and what to do."""
    make_wheel(bench.public.folder, "other", files=files)
    error = refused(bench, bench.recipe("acme-core>=1", "other==1.0"))
    assert "acme_core would be loaded from acme-core 2.0 of the base" in error.message
    assert "not from other of this build" in error.message
    assert error.place == Place(FILE, 8)


def test_a_shadowed_module_may_be_accepted(bench: Bench) -> None:
    """A definition may accept it by name, if the base's module is wanted."""
    make_wheel(bench.public.folder, "other", files={"acme_core.py": "X = 1\n", "fine.py": ""})
    assert verify(bench, bench.recipe("other", checks=Checks(exclude=("acme_core",)))) == []


def test_an_own_package_is_not_shadowed_either(bench: Bench) -> None:
    """The message points to its line in the definition."""
    own = bench.package("acme-own", {"acme_core/__init__.py": ""})
    error = refused(bench, bench.recipe(own))
    assert "of the base, and not from acme-own of this build" in error.message


def test_modules_that_stand_for_others_are_as_meant(bench: Bench) -> None:
    """A package may replace one of its own modules with the base's."""
    text = "import sys, acme_core\nsys.modules[__name__] = acme_core\n"
    make_wheel(bench.public.folder, "other", files={"other.py": text})
    assert verify(bench, bench.recipe("other")) == []


def test_files_of_the_data_scheme_lie_where_modules_look_for_them(bench: Bench) -> None:
    """They are in one prefix with the modules of all wheels that have such files."""
    site = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    make_wheel(
        bench.public.folder,
        "engine",
        files={
            "engine-1.0.data/data/lib/libengine.so.2": "code\n",
            "engine.py": "",
            "engine-1.0.data/data/share/engine/x.txt": "x\n",
        },
    )
    text = (
        "from pathlib import Path\nPREFIX = Path(__file__).parents[4]\n"
        "assert (PREFIX / 'lib/libengine.so.2').read_text() == 'code\\n', PREFIX\n"
        "assert (PREFIX / 'share/engine/x.txt').is_file()\n"
    )
    make_wheel(
        bench.public.folder,
        "user",
        requires=("engine",),
        files={
            f"user-1.0.data/data/{site}/user/__init__.py": text,
            "user-1.0.data/data/bin/user-tool": "#!/bin/sh\n",
            "user-1.0.data/data/etc/user.conf": "",
        },
    )
    make_wheel(bench.public.folder, "plain")
    recipe = bench.recipe("user", "plain", checks=Checks(imports=("user",)))
    assert verify(bench, recipe) == []
    built = bench.build(recipe)
    document = bench.share.build(built.build_id)
    assert document is not None
    assert sorted(row.path.split("/", 4)[4] for row in document.paths) == ["lib", site]
    (programs,) = document.bin
    assert (bench.share.root / programs / "user-tool").is_file()


# ------------------------------------------------------------------------------ optional modules


def test_modules_that_no_dag_imports_are_warnings(bench: Bench) -> None:
    """Migrations, templates, tests and modules for an extra are each reported with a reason."""
    own = bench.package(
        "acme-own",
        {
            "acme_own/__init__.py": "VERSION = 1\n",
            "acme_own/spark.py": "from pyspark.sql import SparkSession\n",
            "acme_own/wrapped.py": (
                "try:\n    import pyspark\nexcept ImportError as e:\n"
                "    raise ImportError('install acme-own[spark]') from e\n"
            ),
            "acme_own/migrations/env.py": "from acme_core import context\n",
            "acme_own/templates/dag_template.py": TEMPLATE,
            "acme_own/blueprints/daily.py": "{% for x in y %}\n",
            "acme_own/tests/test_all.py": "import pytest_of_nobody\n",
            "acme_own/test_unit.py": "import pytest_of_nobody\n",
            "acme_own/conftest.py": "raise SystemExit\n",
        },
        requires=("pyspark>=3.5; extra == 'spark'",),
    )
    warnings = "\n".join(verify(bench, bench.recipe(own)))
    for name in (
        "spark",
        "wrapped",
        "migrations.env",
        "templates.dag_template",
        "tests.test_all",
        "blueprints.daily",
        "test_unit",
        "conftest",
    ):
        assert f"acme_own.{name}: " in warnings
    assert "pyspark, of the extra spark" in warnings
    assert "it is a template" in warnings


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("acme_own/__init__.py", "import pyspark\n"),  # so nothing of it can be imported
        ("acme_own/deep.py", "import undeclared\n"),  # part of no extra
        ("acme_own/deep.py", "x = \n"),
    ],
)
def test_what_is_wrong_is_not_taken_for_optional(bench: Bench, module: str, text: str) -> None:
    """Only what an extra explains is optional."""
    own = bench.package(
        "acme-own",
        {"acme_own/__init__.py": "", module: text},
        requires=("pyspark>=3.5; extra == 'spark'",),
    )
    assert "does not import" in refused(bench, bench.recipe(own)).message


def test_an_optional_module_that_is_asked_for_must_import(bench: Bench) -> None:
    """checks.imports says that the module is needed."""
    own = bench.package(
        "acme-own",
        {"acme_own/__init__.py": "", "acme_own/spark.py": "import pyspark\n"},
        requires=("pyspark; extra == 'spark'",),
    )
    error = refused(bench, bench.recipe(own, checks=Checks(imports=("acme_own.spark",))))
    assert error.place == Place(f"{OWN}/acme_own/spark.py", 1)


@pytest.mark.parametrize("glob", ["acme_own.old", "acme_own.old.*", "*.old", "acme_own.o*"])
def test_modules_that_are_excluded_are_not_imported(bench: Bench, glob: str) -> None:
    """Globs of their names exclude them and all that is in them; others are checked."""
    modules = {"acme_own/__init__.py": "", "acme_own/old/x.py": "raise SystemExit\n"}
    own = bench.package("acme-own", modules)
    assert verify(bench, bench.recipe(own, checks=Checks(exclude=(glob,)))) == []
    refused(bench, bench.recipe(own, checks=Checks(exclude=("acme_own.new",))))


def test_a_module_nobody_imports_cannot_spoil_the_report(bench: Bench) -> None:
    """If it ends the process, the results until then still count."""
    own = bench.package(
        "acme-own",
        {"acme_own/__init__.py": "", "acme_own/tests/test_x.py": "import os\nos._exit(3)\n"},
    )
    assert verify(bench, bench.recipe(own)) == []


def test_a_verification_that_is_killed_names_the_memory(bench: Bench) -> None:
    """That is how a process ends for which there is no memory left."""
    text = "import os, sys\nif 'imports' in sys.argv:\n    os.kill(os.getpid(), 9)\n"
    own = bench.package("acme-own", {"acme_own/__init__.py": text})
    assert "needed more memory" in refused(bench, bench.recipe(own)).message


# ------------------------------------------------------------------------- data and programs


def test_a_pointer_of_lfs_instead_of_data_is_refused_in_an_own_package(bench: Bench) -> None:
    """The error points to the file in the repo."""
    own = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/weights.bin": POINTER})
    error = refused(bench, bench.recipe(own))
    assert "acme_own/weights.bin is a Git LFS pointer" in error.message
    assert error.place is not None
    assert error.place.file == f"{OWN}/acme_own/weights.bin"


def test_a_pointer_in_somebody_elses_wheel_is_a_warning(bench: Bench) -> None:
    """The person who installs the wheel cannot change it."""
    make_wheel(bench.public.folder, "other", files={"other/__init__.py": "", "other/w": POINTER})
    (warning,) = verify(bench, bench.recipe("other"))
    assert "other/w" in warning


def with_program(bench: Bench, data: bytes) -> Recipe:
    """Return a recipe with a program as a server has it."""
    digest = hashlib.sha256(data).hexdigest()
    with Answers(data, {}) as server:
        host = server.url.removeprefix("http://")
        bench.builder = bench.make_builder(allow_hosts=[host])
        make_wheel(bench.public.folder, "alpha")
        item = FileItem(digest, url=f"{server.url}/tool", path="bin/tool")
        recipe = bench.recipe("alpha", files=(item,))
        bench.build(recipe)
    return recipe


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x7fELF\x02\x01\x01" + bytes(57), "Exec format error"),
        (b"\x7fELF of another machine", "Exec format error"),
        (b"#!/nothing/such\n", "No such file"),
        (b"#!/bin/sh\nnothing-such-program\nexit 127\n", "not found"),
    ],
)
def test_a_program_that_cannot_start_is_refused(bench: Bench, data: bytes, words: str) -> None:
    """The build is refused before a task needs the program."""
    error = refused(bench, with_program(bench, data))
    assert "the program tool cannot be started" in error.message
    assert words in error.message


@pytest.mark.parametrize("data", [b"#!/bin/sh\nexit 0\n", b"#!/bin/sh\nexit 2\n"])
def test_a_program_that_starts_is_fine(bench: Bench, data: bytes) -> None:
    """Its output does not matter, and the definition need not give it a mode."""
    assert verify(bench, with_program(bench, data)) == []


# ----------------------------------------------------------------------- needs of the instance


def activate(bench: Bench, recipe: Recipe) -> None:
    """Build, verify and activate the build on the instance."""
    built = bench.build(recipe)
    job, instance, runtime = bench.job(), bench.instance(), bench.runtime
    bench.builder.verify(job, recipe, runtime, instance, built.build_id)
    bench.share.point(
        instance.name,
        base_of(runtime),
        built.build_id,
        ["scheduler"],
    )


def test_a_module_that_dags_need_is_missed_before_anything_live_is_touched(bench: Bench) -> None:
    """A renamed module also fails on the bare base, so the comparison is with the active build."""
    old = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/old.py": ""})
    new = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/new.py": ""})
    bench.instance()
    dags = bench.root / "airflow" / "dags"
    (dags / "daily.py").write_text("import acme_own.old\n")
    (dags / "broken.py").write_text("import nobody_has_this\n")
    activate(bench, bench.recipe(old))
    error = refused(bench, bench.recipe(new))
    assert "DAG daily.py parses with the active build" in error.message
    assert "acme_own.old" in error.message
    (dags / "daily.py").write_text("import acme_own\n")
    assert verify(bench, bench.recipe(new)) == []


def test_dags_are_parsed_again_with_a_build_that_was_verified_before(bench: Bench) -> None:
    """An older build may no longer fit, if DAGs meanwhile need the newer one."""
    old = bench.package("acme-own", {"acme_own/__init__.py": ""})
    new = bench.package("acme-own", {"acme_own/__init__.py": "", "acme_own/new.py": ""})
    activate(bench, bench.recipe(old))
    activate(bench, bench.recipe(new))
    (bench.root / "airflow" / "dags" / "daily.py").write_text("import acme_own.new\n")
    error = refused(bench, bench.recipe(old))
    assert "DAG daily.py parses with the active build" in error.message
    assert verify(bench, bench.recipe(new)) == []


def test_an_own_module_that_imports_too_slowly_is_refused(bench: Bench) -> None:
    """Every DAG that imports it would exceed the instance's limit."""
    own = bench.package(
        "acme-own", {"acme_own/__init__.py": "", "acme_own/slow.py": "import time\ntime.sleep(1)\n"}
    )
    bench.instance()
    config = bench.root / "airflow" / "airflow.cfg"
    config.write_text("[core]\ndagbag_import_timeout = 0.5\n")
    error = refused(bench, bench.recipe(own))
    assert "acme_own.slow took" in error.message
    assert "the instance allows 0.5 s" in error.message
    assert error.place is not None
    assert error.place.file == f"{OWN}/acme_own/slow.py"
    config.write_text("[core]\ndagbag_import_timeout = 300\n")
    assert verify(bench, bench.recipe(own)) == []


# ------------------------------------------------------------------------------ forged reports

SOUND: dict[str, object] = {
    "fatal": [],
    "warnings": [],
    "modules": 1,
    "seconds": 1.0,
    "opens": 1,
    "files": 1,
    "hot": [],
}
CHANGES: list[dict[str, object]] = [
    {"modules": "x"},
    {"modules": -1},
    {"modules": 1 << 80},
    {"seconds": None},
    {"seconds": []},
    {"opens": 1.5},
    {"files": True},
    {"fatal": {}},
    {"fatal": ["x"]},
    {"fatal": [{"what": 1}]},
    {"warnings": None},
    {"warnings": [[]]},
    {"hot": {}},
    {"hot": [1]},
    {"hot": [["a", "b"]]},
    {"hot": [["a", [1]]]},
    {"seconds": float("inf")},
    {
        "fatal": [
            {
                "kind": "none",
                "what": "",
                "distribution": "",
                "error": "",
                "file": "",
                "line": 1,
                "traceback": "",
            }
        ]
    },
]
FORGERIES = [
    "[]",
    "null",
    "1",
    '""',
    "{}",
    "",
    "{",
    "\x00",
    "[" * 100_000,
    '{"a":' * 100_000,
    "NaN",
    *(json.dumps({**SOUND, **change}) for change in CHANGES),
    json.dumps({**SOUND, "warnings": "\ud800"}),
    json.dumps({**SOUND, "modules": 1}).replace(": 1,", ": " + "9" * 5000 + ",", 1),
]


def test_a_forged_report_is_a_reason_in_words(bench: Bench) -> None:
    """A build's code can write any report: that refuses the build, and is no bug of Groundcrew."""
    text = (
        "import os, sys\n"
        "if 'imports' in sys.argv:\n"
        "    with open(sys.argv[2], 'w', errors='surrogatepass') as file:\n"
        "        file.write(FORGERY)\n"
        "    os._exit(0)\n"
    )
    own = bench.package("acme-own", {"acme_own/__init__.py": f"FORGERY = {FORGERIES[0]!r}\n{text}"})
    error = refused(bench, bench.recipe(own))
    assert "the report of importing the build's modules is invalid" in error.message


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda text: repr(text[:40]))
def test_every_forgery_is_told(forgery: str) -> None:
    """One report of each kind is given to the reader alone."""
    with pytest.raises(Malformed, match="the report"):
        parse(Report, forgery, "the report")


def test_a_report_with_endless_wrong_rows_is_told_at_the_first() -> None:
    """An error for each of millions of rows would take gigabytes."""
    for row in ("1", "{}", "[]"):
        text = f'{{"fatal": [{",".join([row] * 1_000_000)}]}}'
        with pytest.raises(Malformed, match=r"fatal\.0"):
            parse(Report, text, "the report")


def test_a_sound_report_is_read() -> None:
    """It may contain what a later release adds."""
    assert parse(Report, json.dumps({**SOUND, "more": 1}), "the report").modules == 1
