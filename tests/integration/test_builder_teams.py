"""Sharing of locks and builds between teams, if a wheel was built from source."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.builder.build_job import BuildJob
from reconciler.builder.builder import Built
from reconciler.core.definitions import Environment, Index, Place, Recipe, SourcePackage
from reconciler.core.model import BuildRecord
from reconciler.core.phases import BuildPhase
from reconciler.daemon.adoption import Adoption
from reconciler.daemon.effects import BuildEffects, BuildTask
from reconciler.daemon.lock_keys import lock_key
from tests.harness.builder import Bench
from tests.harness.wheels import IndexServer, make_sdist, make_wheel

TOOL = "word = {!r}\nneeds = {!r}\n"
SEEN = "import pathlib, tool\npathlib.Path('acme_common/seen.py').write_text(repr(tool.word))\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as bench:
        make_wheel(bench.public.folder, "tool", files={"tool.py": TOOL.format("good", "")})
        yield bench


def asking_for(bench: Bench, package: SourcePackage, tool: str) -> SourcePackage:
    """Return the package with a build requirement; `tool.needs` adds requirements to its wheel."""
    folder = bench.root / "trees" / package.tree
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", f'requires = ["{tool}"]'))
    backend = folder / "backend.py"
    code = backend.read_text().replace('{version}\\n"', '{version}\\n{tool.needs}"')
    backend.write_text(code)
    return package


def common(bench: Bench) -> SourcePackage:
    """Return a package whose `seen.py` shows the build requirement that it was built with."""
    own = bench.package("acme-common", {"acme_common/__init__.py": ""}, preamble=SEEN)
    return asking_for(bench, replace(own, path="shared/packages/common"), "tool")


def poison(bench: Bench, team: str, needs: str = "") -> None:
    """Let a package of a team change uv's cache for that team, which it may write."""
    cache = bench.state / "cache" / "uv-teams" / team
    code = (
        "import pathlib, tool\n"
        f"for path in pathlib.Path({str(cache)!r}).rglob('tool.py'):\n"
        "    path.unlink()\n"
        f"    path.write_text({TOOL.format('evil', needs)!r})\n"
    )
    own = bench.package("acme-poison", {"acme_poison/__init__.py": ""}, preamble=code)
    bench.lock(bench.recipe(asking_for(bench, own, "tool")), bench.job(team))


def seen(bench: Bench, built: Built) -> str:
    return bench.paths(built)["acme_common/seen.py"].strip("'")


def test_a_teams_own_index_shapes_nobody_elses_build(bench: Bench) -> None:
    """One tree is built by a team whose index replaces the build tool, and by another team."""
    own = common(bench)
    with IndexServer(bench.root / "evil") as evil:
        make_wheel(evil.folder, "tool", files={"tool.py": TOOL.format("evil", "")})
        bench.builder = bench.make_builder(allow_hosts=[evil.host])
        theirs = bench.recipe(own, indexes=(Index("own", evil.url, ("tool",)),))
        blue = bench.build(theirs, bench.job("blue"))
        red = bench.build(bench.recipe(own), bench.job("red"))
        again = bench.build(bench.recipe(own), bench.job("blue"))
    assert seen(bench, blue) == "evil"
    assert seen(bench, red) == "good"
    assert seen(bench, again) == "good", "its other definition does not name that index"
    assert red.build_id == again.build_id != blue.build_id


def test_what_a_team_does_to_its_cache_reaches_no_other_team(bench: Bench) -> None:
    """Build scripts of a team replace entries in uv's cache for it; only that team gets them."""
    own = common(bench)
    poison(bench, "blue")
    recipe = bench.recipe(own)
    blue, red = bench.build(recipe, bench.job("blue")), bench.build(recipe, bench.job("red"))
    assert seen(bench, blue) == "evil"
    assert seen(bench, red) == "good"
    assert blue.build_id != red.build_id
    instance = bench.instance()
    bench.builder.verify(bench.job("blue"), recipe, bench.runtime, instance, blue.build_id)
    assert not bench.share.verified(red.build_id, bench.runtime.key)


def test_an_sdists_wheel_is_part_of_what_a_build_is(bench: Bench) -> None:
    """The wheel built from a third-party sdist in one team's cache is not given to another team."""
    caches = bench.state / "cache" / "uv-teams"
    code = (
        f"import pathlib\nmarks = list(pathlib.Path({str(caches)!r}).rglob('mark'))\n"
        "pathlib.Path('acme_common/seen.py').write_text(repr('evil' if marks else 'good'))\n"
    )
    make_sdist(bench.public.folder, "acme-common", preamble=code)
    leave = f"import pathlib\npathlib.Path({str(caches / 'blue' / 'mark')!r}).write_text('')\n"
    left = bench.package("acme-left", {"acme_left/__init__.py": ""}, preamble=leave)
    bench.lock(bench.recipe(left), bench.job("blue"))
    recipe = bench.recipe("acme-common", source_builds=("acme-common",))
    blue, red = bench.build(recipe, bench.job("blue")), bench.build(recipe, bench.job("red"))
    assert (seen(bench, blue), seen(bench, red)) == ("evil", "good")
    assert blue.build_id != red.build_id


def test_the_same_environment_is_one_build_for_two_teams(bench: Bench) -> None:
    """Each team builds the wheel itself; the same bytes are the same build, published once."""
    recipe = bench.recipe(common(bench))
    jobs = [bench.job("red"), bench.job("blue")]
    one, two = (bench.build(recipe, job) for job in jobs)
    assert one.build_id == two.build_id
    assert ["building shared" in job.log.read_text() for job in jobs] == [True, True]
    assert "on the share already" in jobs[1].log.read_text()


# ------------------------------------------------------------------------------------------- locks


class Kept(dict[tuple[str, str], str]):
    """A store of locks with the interface of the records."""

    def lock(self, recipe_digest: str, runtime_key: str) -> str | None:
        """Return the kept lock."""
        return self.get((recipe_digest, runtime_key))


def resolve(bench: Bench, kept: Kept, team: str, recipe: Recipe) -> tuple[str, BuildJob]:
    """Resolve as the daemon does; return the lock's text and a job whose log shows the steps."""
    job = bench.job(team)
    build = BuildRecord(
        job.key, "one", team, recipe.digest, bench.runtime.key, "", BuildPhase.RESOLVING, 0.0
    )
    environment = Environment("one", team, Place("f"), recipe)
    key = lock_key(environment)
    task = BuildTask(build, environment, bench.instance(), bench.runtime, key, job.log)
    effects = BuildEffects(lambda _image: bench.builder, kept, Adoption(bench.share))
    kept |= effects.run("resolve", task, threading.Event()).locks
    return kept[key, bench.runtime.key], job


def test_a_lock_is_shared_by_teams_whose_wheels_are_the_same(bench: Bench) -> None:
    """The second team builds its wheel, and then uses the lock of the first."""
    kept, recipe = Kept(), bench.recipe(common(bench))
    one, _ = resolve(bench, kept, "red", recipe)
    two, job = resolve(bench, kept, "blue", recipe)
    assert one == two
    assert "building shared" in job.log.read_text()
    assert "resolving" not in job.log.read_text()


def test_a_lock_of_other_wheels_is_not_shared(bench: Bench) -> None:
    """Requirements that a wheel has because of a team's cache are in that team's lock only."""
    make_wheel(bench.public.folder, "unwanted")
    kept, recipe = Kept(), bench.recipe(common(bench))
    poison(bench, "blue", "Requires-Dist: unwanted\n")
    theirs, _ = resolve(bench, kept, "blue", recipe)
    ours, _ = resolve(bench, kept, "red", recipe)
    assert "unwanted" in theirs
    assert "unwanted" not in ours


def test_a_lock_without_anything_made_is_every_teams(bench: Bench) -> None:
    """If all wheels are from indexes, one resolution serves all teams and runs no team's code."""
    kept, recipe = Kept(), bench.recipe("tool")
    one, _ = resolve(bench, kept, "red", recipe)
    two, job = resolve(bench, kept, "blue", recipe)
    assert one == two
    assert not job.log.is_file()


def test_no_build_script_writes_where_locks_for_all_come_from(bench: Bench) -> None:
    """If a definition has an index, build scripts do not write to the resolver's cache."""
    with IndexServer(bench.root / "more") as more:
        make_wheel(more.folder, "alpha")
        bench.builder = bench.make_builder(allow_hosts=[more.host])
        recipe = bench.recipe("alpha", indexes=(Index("more", more.url, ("alpha",)),))
        resolve(bench, Kept(), "red", recipe)
    assert not list((bench.state / "cache" / "uv-teams" / "red").glob("**/alpha*"))
