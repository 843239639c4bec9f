"""From a lock to a build on the share: downloads, checks, refusals and reuse."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.builder.build_job import BuildJob
from reconciler.builder.builder import Built
from reconciler.cli.sources.sbom import Sbom, read_sbom
from reconciler.core.definitions import Index, Place, Recipe
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from tests.fakes.answers import Answers
from tests.harness.builder import FILE, PASSWORD, USER, Bench, holding
from tests.harness.wheels import make_sdist, make_wheel


def refused(bench: Bench, lock: str, *wanted: str, **more: object) -> Stalled:
    """Return the error that refuses a construction; nothing of the build is on the share."""
    with pytest.raises(Stalled) as caught:
        bench.builder.construct(bench.job(), bench.recipe(*wanted, **more), bench.runtime, lock)
    assert bench.on_share() == []
    return caught.value


def test_a_build_holds_its_packages_lock_sbom_and_log(bench: Bench) -> None:
    """The files for the loader, for an auditor and for a person are together on the share."""
    make_wheel(bench.public.folder, "alpha", requires=("beta",))
    make_wheel(bench.public.folder, "beta", "2.0")
    recipe = bench.recipe("alpha", env=(("ACME_REGION", "eu"),))
    built = bench.build(recipe)
    assert built.packages == (("alpha", "1.0"), ("beta", "2.0"))
    assert set(bench.paths(built)) == {"alpha.py", "beta.py"}
    folder = bench.share.build_path(built.build_id)
    sbom = json.loads((folder / "sbom.cdx.json").read_text())
    assert {c["purl"] for c in sbom["components"]} == {"pkg:pypi/alpha@1.0", "pkg:pypi/beta@2.0"}
    requirements = Sbom(("alpha",), {"alpha": ("beta",), "beta": ()})
    assert read_sbom((folder / "sbom.cdx.json").read_bytes()) == requirements
    log = (folder / "build.log").read_text()
    assert "placed alpha 1.0" in log
    assert "Resolved" in log
    assert "lock-version" not in log, "the lock is beside it"
    document = bench.share.build(built.build_id)
    assert document is not None
    assert document.env == {"ACME_REGION": "eu"}


def test_bytecode_is_compiled_once_and_holds_wherever_it_is_copied(bench: Bench) -> None:
    """Every module of an entry has unchecked-hash bytecode, made by the instance's interpreter."""
    make_wheel(bench.public.folder, "alpha")
    bench.paths(bench.build(bench.recipe("alpha")))
    (compiled,) = bench.share.root.rglob("alpha.*.pyc")
    assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00"


def test_tests_inside_of_packages_are_not_compiled(bench: Bench) -> None:
    """Instances never import them; modules in packages with that or a similar name are compiled."""
    names = (
        "alpha/one.py",
        "alpha/tests/two.py",
        "alpha/sub/tests/deep/three.py",
        "alpha/testing/four.py",
        "alpha/tests.py",
        "tests/five.py",
    )
    make_wheel(bench.public.folder, "alpha", files=dict.fromkeys(names, "X = 1\n"))
    bench.paths(bench.build(bench.recipe("alpha")))
    compiled = {path.name.split(".")[0] for path in bench.share.root.rglob("*.pyc")}
    assert compiled == {"one", "four", "tests", "five"}


def test_the_largest_wheels_are_placed_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheels that take longest come first; packages keep the lock's order."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    noise = "".join(chr(33 + n * n % 89) for n in range(50_000))
    make_wheel(bench.public.folder, "alpha", requires=("beta", "gamma"))
    make_wheel(bench.public.folder, "beta", files={"beta.py": "", "beta.txt": noise})
    make_wheel(bench.public.folder, "gamma", files={"gamma.py": "", "gamma.txt": noise * 2})
    sizes = {p.name[0]: p.stat().st_size for p in bench.public.folder.glob("*.whl")}
    built = bench.build(bench.recipe("alpha"))
    log = (bench.share.build_path(built.build_id) / "build.log").read_text()
    placed = [line.split()[1][0] for line in log.splitlines() if "placed " in line]
    assert placed == sorted("abg", key=lambda name: -sizes[name]) != list("abg")
    assert [name for name, _ in built.packages] == ["alpha", "beta", "gamma"]


def test_the_same_lock_twice_builds_nothing_new(bench: Bench) -> None:
    """A second construction downloads, places and changes nothing, even in another process."""
    make_wheel(bench.public.folder, "alpha")
    recipe = bench.recipe("alpha")
    lock = bench.lock(recipe)
    first = bench.builder.construct(bench.job(), recipe, bench.runtime, lock)
    before, asked = bench.on_share(), len(bench.public.asked)
    again = bench.make_builder().construct(bench.job(), recipe, bench.runtime, lock)
    assert again == first
    assert (bench.on_share(), len(bench.public.asked)) == (before, asked)


def test_a_wheel_that_many_builds_want_at_once_is_fetched_and_made_once(bench: Bench) -> None:
    """If eight builds start together, each shared wheel costs one download and one entry."""
    shared = [f"common{number}" for number in range(4)]
    for name in (*shared, *(f"own{number}" for number in range(8))):
        make_wheel(bench.public.folder, name)
    recipes = [bench.recipe(*shared, f"own{number}") for number in range(8)]
    jobs = [bench.job(f"team{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        locks = list(pool.map(bench.lock, recipes, jobs))
        bench.public.asked.clear()  # resolution reads metadata; from here on only wheels
        together = threading.Barrier(8)

        def construct(job: BuildJob, recipe: Recipe, lock: str) -> Built:
            together.wait()
            return bench.builder.construct(job, recipe, bench.runtime, lock)

        built = list(pool.map(construct, jobs, recipes, locks))
    assert len({one.build_id for one in built}) == 8
    wheels = sorted(p.name for p in bench.public.folder.glob("*.whl"))
    assert sorted(bench.public.downloads()) == wheels
    placed = [line for job in jobs for line in job.log.read_text().splitlines() if "placed" in line]
    assert len(placed) == len(wheels)


def test_a_second_team_uses_the_entries_of_the_first(bench: Bench) -> None:
    """Nothing that one team's build needed is downloaded or written again for another team."""
    make_wheel(bench.public.folder, "alpha")
    make_wheel(bench.public.folder, "beta")
    bench.paths(bench.build(bench.recipe("alpha")))
    entries = {p.name: p.stat().st_mtime_ns for p in (bench.share.root / "store").rglob("*")}
    shutil.rmtree(bench.state / "cache" / "wheels")
    job = bench.job("blue")
    built = bench.build(bench.recipe("alpha", "beta"), job)
    assert set(bench.paths(built)) == {"alpha.py", "beta.py"}
    assert "fetching alpha" not in job.log.read_text()
    after = {p.name: p.stat().st_mtime_ns for p in (bench.share.root / "store").rglob("alpha.py")}
    assert after.items() <= entries.items()


def test_a_wheel_that_was_replaced_on_the_index_is_refused(bench: Bench) -> None:
    """The lock's hash decides, and the message says what happened and what to do."""
    make_wheel(bench.public.folder, "alpha")
    lock = bench.lock(bench.recipe("alpha"))
    make_wheel(bench.public.folder, "alpha", files={"alpha.py": "import os\n"})
    error = refused(bench, lock, "alpha")
    assert error.reason == Reason.HASH_MISMATCH
    assert "groundcrew refresh one" in error.message
    assert not list((bench.state / "cache" / "wheels").rglob("*.whl"))


@pytest.mark.parametrize(("most", "seconds"), [(100, 60.0), (1 << 20, -1.0)])
def test_what_an_index_sends_has_an_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, most: int, seconds: float
) -> None:
    """A wheel that is too large, or takes too long, is not downloaded further."""
    make_wheel(bench.public.folder, "alpha")
    recipe = bench.recipe("alpha")
    lock = bench.lock(recipe)
    monkeypatch.setattr("reconciler.builder.wheels.download.FETCHING", seconds)
    message = "larger than 100 bytes" if most == 100 else "has not sent"
    with pytest.raises((Stalled, Retryable), match=message):
        bench.make_builder(file_bytes=most).construct(bench.job(), recipe, bench.runtime, lock)
    assert not list((bench.state / "cache" / "wheels").rglob("*.whl"))


def test_a_wheel_that_vanished_from_the_index_is_tried_again_later(bench: Bench) -> None:
    """An index that answers 404 may recover; nothing is left on the share."""
    wheel = make_wheel(bench.public.folder, "alpha")
    lock = bench.lock(bench.recipe("alpha"))
    wheel.unlink()
    with pytest.raises(Retryable, match="answers 404"):
        bench.builder.construct(bench.job(), bench.recipe("alpha"), bench.runtime, lock)
    assert bench.on_share() == []


@pytest.mark.parametrize("name", ["../../escaped.py", "/tmp/escaped.py", "alpha/../../x.py"])
def test_a_wheel_that_leaves_its_folder_is_refused(bench: Bench, name: str) -> None:
    """A member with a path outside is refused before anything is unpacked."""
    make_wheel(bench.public.folder, "alpha", files={"alpha.py": "", name: "x = 1\n"})
    error = refused(bench, bench.lock(bench.recipe("alpha")), "alpha")
    assert error.reason == Reason.UNSAFE_WHEEL
    assert name in error.message
    assert not list(bench.state.rglob("escaped.py"))


def test_a_wheel_whose_record_is_wrong_is_installed_with_a_warning(bench: Bench) -> None:
    """Its own hash matches the lock, so it is what was resolved, as for pip and uv."""
    make_wheel(bench.public.folder, "alpha", bad_record=True)
    built = bench.build(bench.recipe("alpha"))
    assert set(bench.paths(built)) == {"alpha.py"}
    log = (bench.share.build_path(built.build_id) / "build.log").read_text()
    assert "warning: " in log
    assert "didn't match RECORD" in log


def test_a_wheel_that_no_disk_takes_is_refused_for_good(bench: Bench) -> None:
    """The wheel is at fault, not the build disk."""
    make_wheel(bench.public.folder, "alpha", files={"x" * 253 + ".py": "", "alpha.py": ""})
    error = refused(bench, bench.lock(bench.recipe("alpha")), "alpha")
    assert error.reason == Reason.INVALID_WHEEL
    assert "alpha-1.0-py3-none-any.whl" in error.message


@pytest.mark.parametrize(
    "answer",
    ["[]", "[" * 200_000, '{"files": 1}', "\\ud800"],
    ids=["list", "deep", "number", "surrogate"],
)
def test_a_page_that_is_none_is_said_in_words(
    bench: Bench, answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The message names the index; only the log shows anything of the page."""
    with Answers(answer.encode(), {"Content-Type": "application/json"}) as server:
        host = server.url.removeprefix("http://")
        bench.builder = bench.make_builder(allow_hosts=[host])
        indexes = (Index("corp", f"{server.url}/simple/", ("acme-*",)),)
        with pytest.raises(Retryable, match="index corp: the page") as caught:
            bench.lock(bench.recipe("acme-gpu", indexes=indexes))
    assert caught.value.reason == Reason.INDEX_UNREADABLE
    assert "Traceback" not in capfd.readouterr().err


def test_wheels_that_share_a_package_become_one_directory(bench: Bench) -> None:
    """Two wheels that both have files of one regular package can be imported together."""
    files = {"family/__init__.py": "", "family/one.py": "", "bin_one.py": ""}
    make_wheel(bench.public.folder, "family-one", files=files)
    make_wheel(bench.public.folder, "family-two", files={"family/two.py": "import family.one\n"})
    recipe = bench.recipe("family-one", "family-two")
    built = bench.build(recipe)
    document = bench.share.build(built.build_id)
    assert document is not None
    assert len(document.paths) == 1
    verified = bench.builder.verify(
        bench.job(), recipe, bench.runtime, bench.instance(), built.build_id
    )
    assert verified.report["warnings"] == []


def test_index_credentials_are_nowhere_but_in_their_secret(bench: Bench) -> None:
    """No log, cache, build file or error contains the password, in clear text or as basic auth."""
    make_wheel(bench.private.folder, "acme-tools")
    spy = "import os, pathlib\n" + (
        "pathlib.Path('acme_own/seen.py').write_text(repr(dict(os.environ)))\n"
    )
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=spy)
    job = bench.job()
    recipe = bench.recipe("acme-tools", own, indexes=(bench.corp("acme-*"),))
    built = bench.build(recipe, job)
    bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)
    assert "HOME" in bench.paths(built)["acme_own/seen.py"]
    basic = __import__("base64").b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, basic):
        assert holding(secret, bench.state, bench.share.root, bench.root / "trees") == []


@pytest.mark.parametrize("indexed", [False, True])
def test_credentials_in_the_default_indexs_address_stay_there(bench: Bench, indexed: bool) -> None:
    """A password in the operator's settings is used, and appears in no lock, log or cache."""
    make_wheel(bench.private.folder, "alpha")
    url = bench.private.url.replace("://", f"://{USER}:{PASSWORD}@")
    bench.builder = bench.make_builder(default_index=url)
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, ("alpha",))
    built = bench.build(bench.recipe(own, indexes=(bench.corp("x-*"),) if indexed else ()))
    assert built.packages == (("acme-own", "1.0"), ("alpha", "1.0"))
    assert holding(PASSWORD, bench.state, bench.share.root) == []


def test_credentials_in_what_a_build_prints_are_masked(bench: Bench) -> None:
    """A secret that a build script knows and prints appears neither in its log nor in its error."""
    loud = f"print('it is {PASSWORD}')\nraise SystemExit('http://u:{PASSWORD}@host/')\n"
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=loud)
    job = bench.job()
    with pytest.raises(Stalled) as caught:
        bench.lock(bench.recipe(own, indexes=(bench.corp(),)), job)
    assert "it is ***" in job.log.read_text()
    assert PASSWORD not in job.log.read_text() + str(caught.value)


# ------------------------------------------------------------------------------- from source


def test_a_named_sdist_is_built_in_the_sandbox(bench: Bench) -> None:
    """It is downloaded, checked by its hash, built without a network and placed like a wheel."""
    make_sdist(bench.public.folder, "delta", "3.1", requires=("beta",))
    make_wheel(bench.public.folder, "beta")
    recipe = bench.recipe("delta", source_builds=("delta",))
    job = bench.job()
    built = bench.build(recipe, job)
    assert built.packages == (("beta", "1.0"), ("delta", "3.1"))
    assert bench.paths(built)["delta/__init__.py"] == '__version__ = "3.1"\n'
    assert "building delta-3.1.tar.gz" in job.log.read_text()
    bench.builder.verify(job, recipe, bench.runtime, bench.instance(), built.build_id)


def test_a_wheel_is_preferred_to_an_sdist_that_may_be_built(bench: Bench) -> None:
    """To name a package permits building it, but does not require that."""
    make_sdist(bench.public.folder, "delta", preamble="raise SystemExit('built')\n")
    make_wheel(bench.public.folder, "delta")
    built = bench.build(bench.recipe("delta", source_builds=("delta",)))
    assert set(bench.paths(built)) == {"delta.py"}


def test_a_private_sdist_is_built_with_its_index(bench: Bench) -> None:
    """An sdist behind credentials is downloaded with them and built without them."""
    make_sdist(bench.private.folder, "acme-delta")
    recipe = bench.recipe(
        "acme-delta", source_builds=("acme-delta",), indexes=(bench.corp("acme-*"),)
    )
    assert set(bench.paths(bench.build(recipe))) == {"acme_delta/__init__.py"}
    assert holding(PASSWORD, bench.state, bench.share.root) == []


def test_an_sdist_is_built_once_for_a_team(bench: Bench) -> None:
    """Another recipe of the same team reuses the wheel; another team builds its own."""
    make_sdist(bench.public.folder, "delta")
    make_wheel(bench.public.folder, "alpha")
    counts = []
    for team, wanted in (("red", ["delta"]), ("red", ["delta", "alpha"]), ("blue", ["delta"])):
        job = bench.job(team)
        env = (("TEAM", team),)
        bench.build(bench.recipe(*wanted, source_builds=("delta",), env=env), job)
        counts.append(job.log.read_text().count("building delta"))
    assert counts == [1, 0, 1]


def test_an_sdist_that_was_replaced_is_refused_and_not_built(bench: Bench) -> None:
    """The sdist's hash is checked before any of its code runs."""
    make_sdist(bench.public.folder, "delta")
    lock = bench.lock(bench.recipe("delta", source_builds=("delta",)))
    make_sdist(bench.public.folder, "delta", preamble="print('it ran')\n")
    error = refused(bench, lock, "delta", source_builds=("delta",))
    assert error.reason == Reason.HASH_MISMATCH


def test_an_sdist_in_a_lock_that_is_no_longer_named_is_refused(bench: Bench) -> None:
    """A kept lock permits nothing that the definition does not permit."""
    make_sdist(bench.public.folder, "delta")
    lock = bench.lock(bench.recipe("delta", source_builds=("delta",)))
    error = refused(bench, lock, "delta")
    assert (error.reason, error.place) == (Reason.SOURCE_BUILD_REFUSED, Place(FILE, 7))
    assert "write `sourceBuilds: [delta]` in `spec`" in error.message


def test_an_sdist_that_does_not_build_says_why_at_its_line(bench: Bench) -> None:
    """The person who asked for the package sees the end of the build's output."""
    make_sdist(bench.public.folder, "delta", preamble="raise SystemExit('no compiler here')\n")
    lock = bench.lock(bench.recipe("delta", source_builds=("delta",)))
    error = refused(bench, lock, "delta", source_builds=("delta",))
    assert (error.reason, error.place) == (Reason.PACKAGE_BUILD_FAILED, Place(FILE, 7))
    assert "no compiler here" in error.message


# ------------------------------------------------------------------------- what builds are given

SEEN = """
import os
seen = {k: v for k, v in os.environ.items() if k in ("CFLAGS", "MAX_JOBS")}
open("acme_own/seen.py", "w").write(f"SEEN = {seen!r}")
"""


def test_variables_of_a_build_reach_its_backend_and_a_change_builds_again(bench: Bench) -> None:
    """They are in no instance's environment."""
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=SEEN)
    for value in ("-O0", "-O1"):
        recipe = bench.recipe(own, build_env=(("CFLAGS", value),))
        built = bench.build(recipe)
        assert bench.paths(built)["acme_own/seen.py"] == f"SEEN = {{'CFLAGS': '{value}'}}"
    assert "CFLAGS" not in (bench.share.build_path(built.build_id) / "build.json").read_text()


def test_constraints_of_a_build_choose_what_its_backend_requires(bench: Bench) -> None:
    """For own packages and for sdists, when it is resolved and when it is built."""
    for version in ("1.0", "2.0"):
        make_wheel(bench.public.folder, "helper", version)
    written = 'import helper; open("acme_own/seen.py", "w").write(helper.__version__)\n'
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=written)
    project = bench._trees[own.tree] / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", 'requires = ["helper"]'))
    newest = bench.build(bench.recipe(own))
    assert bench.paths(newest)["acme_own/seen.py"] == "2.0"
    pinned = bench.build(bench.recipe(own, build_constraints=("helper<2",)))
    assert bench.paths(pinned)["acme_own/seen.py"] == "1.0"


VERSIONED = """
import os
VERSION = os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION")
if VERSION is None:
    raise LookupError("unable to detect version for this tree")
"""


def test_a_version_that_git_would_give_is_made_of_the_tree(bench: Bench) -> None:
    """A package that says no version gets one that changes with its source, or the team's own."""
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=VERSIONED)
    folder = bench._trees[own.tree]
    project, backend = folder / "pyproject.toml", folder / "backend.py"
    project.write_text(project.read_text().replace('version = "1.0"', 'dynamic = ["version"]'))
    backend.write_text(backend.read_text().replace('"acme-own", "1.0"', '"acme-own", VERSION'))
    assert bench.names(bench.recipe(own)) == (("acme-own", f"0.0+g{own.tree[:10]}"),)
    said = (("SETUPTOOLS_SCM_PRETEND_VERSION", "1.4"),)
    assert bench.names(bench.recipe(own, build_env=said)) == (("acme-own", "1.4"),)


def test_a_version_that_nothing_gives_is_asked_for(bench: Bench) -> None:
    """A backend may read git itself, and no variable tells it a version."""
    needs_git = 'raise LookupError("this is no git repository")\n'
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=needs_git)
    project = bench._trees[own.tree] / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "1.0"', 'dynamic = ["version"]'))
    with pytest.raises(Stalled, match="this is no git repository") as caught:
        bench.lock(bench.recipe(own))
    assert "write `version` in its [project] table" in caught.value.message


def test_a_package_that_states_its_version_is_built_once(bench: Bench) -> None:
    """Its mistake is told as it is."""
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=VERSIONED)
    job = bench.job()
    with pytest.raises(Stalled, match="LookupError: unable to detect version"):
        bench.lock(bench.recipe(own), job)
    assert "0.0+g" not in job.log.read_text()


NOISE = "import sys; print('cc -c ext.c -o ext.o\\\\n' * 60, file=sys.stderr)\n"


@pytest.mark.parametrize("dynamic", [True, False])
def test_the_line_that_says_what_is_missing_is_in_the_message(bench: Bench, dynamic: bool) -> None:
    """However much a compiler prints after it, and also when it is built to learn what it needs."""
    missing = "print('ext.c:3:10: fatal error: acme.h: No such file or directory', file=sys.stderr)"
    preamble = f"import sys\n{missing}\n{NOISE}sys.exit(1)\n"
    sdist = make_sdist(bench.public.folder, "delta", preamble=preamble)
    if dynamic:
        folder = bench.root / "unpacked"
        shutil.unpack_archive(sdist, folder, filter="data")
        project = folder / "delta-1.0" / "pyproject.toml"
        project.write_text(
            project.read_text().replace("dependencies = []", 'dynamic = ["dependencies"]')
        )
        (folder / "delta-1.0" / "PKG-INFO").unlink()
        sdist.unlink()
        shutil.make_archive(str(sdist).removesuffix(".tar.gz"), "gztar", folder, "delta-1.0")
    make_wheel(bench.public.folder, "beta")
    with pytest.raises(Stalled) as caught:
        bench.build(bench.recipe("beta", "delta", source_builds=("delta",)))
    error = caught.value
    assert (error.reason, error.place) == (Reason.PACKAGE_BUILD_FAILED, Place(FILE, 8))
    assert "ext.c:3:10: fatal error: acme.h: No such file or directory" in error.message
