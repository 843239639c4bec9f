"""Resolution with real uv and real indexes: contents of the lock, and messages of refusals."""

from __future__ import annotations

import hashlib
import tomllib
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.builder.resolve.choice import locked
from reconciler.builder.resolve.pylock import read_lock
from reconciler.core.definitions import Api, Index, Place, Recipe, SourcePackage
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.model import InstanceRecord, Records
from reconciler.core.reasons import Reason
from reconciler.daemon.wiring import Wiring
from reconciler.settings import BuilderSettings, Settings
from tests.fakes.addresses import served
from tests.harness.builder import FILE, PASSWORD, Bench, holding
from tests.harness.wheels import make_sdist, make_wheel


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, {"acme-core": "2.0", "old-lib": "1.5+corp"}) as bench:
        yield bench


def refused(bench: Bench, *wanted: str | SourcePackage, **more: object) -> GroundcrewError:
    """Return the error that refuses a resolution."""
    with pytest.raises(GroundcrewError) as caught:
        bench.lock(bench.recipe(*wanted, **more))
    return caught.value


def test_only_what_the_base_lacks_is_locked(bench: Bench) -> None:
    """Neither the base's packages nor their requirements are part of the lock."""
    make_wheel(bench.public.folder, "alpha", requires=("acme-core>=1", "beta", "apache-airflow"))
    make_wheel(bench.public.folder, "beta")
    make_wheel(bench.public.folder, "acme-core", "2.0")
    assert bench.names(bench.recipe("alpha", "apache-airflow>=3")) == (
        ("alpha", "1.0"),
        ("beta", "1.0"),
    )


def test_the_base_decides_which_version_is_chosen(bench: Bench) -> None:
    """A newer version that needs another version of a base package is passed over."""
    make_wheel(bench.public.folder, "acme-core", "3.0")
    make_wheel(bench.public.folder, "alpha", "2.0", requires=("acme-core>=3",))
    make_wheel(bench.public.folder, "alpha", "1.0", requires=("acme-core<3",))
    assert bench.names(bench.recipe("alpha")) == (("alpha", "1.0"),)


def test_a_base_with_versions_of_its_own_resolves(bench: Bench) -> None:
    """Versions that the image's authors built themselves are on no index; that does not matter."""
    make_wheel(bench.public.folder, "alpha", requires=("old-lib>=1", "acme-core"))
    make_wheel(bench.public.folder, "old-lib", "9.0")
    assert bench.names(bench.recipe("alpha")) == (("alpha", "1.0"),)


def test_a_version_that_cannot_be_read_does_not_stop_resolving(tmp_path: Path) -> None:
    """A base with an invalid version string can still be resolved for."""
    with Bench(tmp_path, {"strange": "unknown-dirty"}) as bench:
        make_wheel(bench.public.folder, "alpha")
        assert bench.names(bench.recipe("alpha")) == (("alpha", "1.0"),)


def test_only_a_file_that_the_hashes_list_is_locked(bench: Bench) -> None:
    wheel = make_wheel(bench.public.folder, "alpha", "1.0")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = bench.lock(bench.recipe("alpha==1.0", hashes=(("alpha", ("0" * 64, digest)),)))
    assert digest in lock
    error = refused(bench, "acme-core", "alpha==1.0", hashes=(("alpha", ("0" * 64,)),))
    assert error.reason == Reason.HASH_MISMATCH
    assert error.place == Place(FILE, 8)
    assert f"has sha256:{digest}" in error.message


@pytest.mark.parametrize(
    "odd",
    [
        {"requires": ("pytz (>dev)", "acme-core>=1.0.*", "acme-core===1.0-odd")},
        {"requires": ("acme-core @ file:///opt/acme-core", "acme-core @ https://h.example/a.exe")},
        {"requires_python": ">=3.6.*"},
        {"requires_python": "===3-odd"},
        {"requires_python": ">=3.6,"},
        {"provides_extra": ("all !", "good")},
        {"name": "-odd"},
    ],
)
def test_a_base_with_metadata_of_old_resolves(bench: Bench, odd: dict[str, Any]) -> None:
    """Metadata that the resolver cannot read is left out, and stops nothing."""
    (other,) = (d for d in bench.runtime.base if d.name == "old-lib")
    base = (*bench.runtime.base, replace(other, **{"name": "odd", **odd}))
    bench.runtime = replace(bench.runtime, key=f"{bench.runtime.key}-odd", base=base)
    make_wheel(bench.public.folder, "alpha", requires=("old-lib", "acme-core"))
    assert bench.names(bench.recipe("alpha")) == (("alpha", "1.0"),)


def test_asking_for_another_version_of_the_base_stalls_at_its_line(bench: Bench) -> None:
    """The message names the base's version, at the requirement's line."""
    make_wheel(bench.public.folder, "acme-core", "3.0")
    make_wheel(bench.public.folder, "alpha")
    error = refused(bench, "alpha", "acme-core>=3")
    assert isinstance(error, Stalled)
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 8))
    assert "the base (Airflow 3.3.2) has acme-core 2.0" in error.message


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_package_of_the_repo_replaces_none_of_the_base(tmp_path: Path, version: str) -> None:
    """Any version in the base prevents it, as the repo's package would be loaded."""
    with Bench(tmp_path, {"acme-own": version}) as bench:
        own = bench.package("acme-own", {"acme_own/__init__.py": ""})
        error = refused(bench, own)
        assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, own.place)
        assert f"the base (Airflow 3.3.2) has acme-own {version}" in error.message


def test_a_dependency_that_conflicts_with_the_base_names_who_asked(bench: Bench) -> None:
    """A conflict deep in the tree is reported at the line of the requirement that causes it."""
    make_wheel(bench.public.folder, "acme-core", "3.0")
    make_wheel(bench.public.folder, "beta")
    make_wheel(bench.public.folder, "alpha", requires=("middle",))
    make_wheel(bench.public.folder, "middle", requires=("acme-core>=3",))
    error = refused(bench, "beta", "alpha")
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 8))
    assert "acme-core" in error.message


def test_requirements_that_exclude_each_other_stall(bench: Bench) -> None:
    """Two requirements without a common version are a conflict, with the resolver's message."""
    for version in ("1.0", "2.0"):
        make_wheel(bench.public.folder, "gamma", version)
    make_wheel(bench.public.folder, "alpha", requires=("gamma<2",))
    error = refused(bench, "alpha", "gamma>=2")
    assert (error.reason, error.place) == (Reason.RESOLUTION_CONFLICT, Place(FILE, 7))
    assert isinstance(error, Stalled)
    assert "unsatisfiable" in error.message


def test_a_constraint_of_the_team_binds(bench: Bench) -> None:
    """A constraints file limits the choice of versions, but requires nothing itself."""
    for version in ("1.0", "2.0"):
        make_wheel(bench.public.folder, "gamma", version)
    limits = (("teams/red/constraints.txt", "gamma<2\nnever-asked-for==1\n"),)
    assert bench.names(bench.recipe("gamma", constraints=limits)) == (("gamma", "1.0"),)


def test_a_name_that_does_not_exist_is_not_found(bench: Bench) -> None:
    """A misspelt requirement is reported as such, at its line."""
    make_wheel(bench.public.folder, "alpha")
    error = refused(bench, "alpha", "alhpa")
    assert (error.reason, error.place) == (Reason.NOT_FOUND, Place(FILE, 8))
    assert "alhpa" in error.message


@pytest.mark.parametrize("indexed", [False, True])
def test_an_sdist_that_is_not_named_is_refused_in_words(bench: Bench, indexed: bool) -> None:
    """The message for a package without a wheel says what to do, whatever the indexes are."""
    make_sdist(bench.public.folder, "delta")
    more = {"indexes": (bench.corp(),)} if indexed else {}
    error = refused(bench, "delta", **more)
    assert isinstance(error, Stalled)
    assert (error.reason, error.place) == (Reason.SOURCE_BUILD_REFUSED, Place(FILE, 7))
    assert "sourceBuilds" in error.message


def test_naming_one_sdist_does_not_allow_another(bench: Bench) -> None:
    """`sourceBuilds` permits only the packages that it names."""
    make_sdist(bench.public.folder, "delta")
    make_sdist(bench.public.folder, "epsilon")
    error = refused(bench, "delta", "epsilon", source_builds=("delta",))
    assert (error.reason, error.place) == (Reason.SOURCE_BUILD_REFUSED, Place(FILE, 8))
    assert error.message.startswith("epsilon")


def test_the_private_index_wins_over_a_higher_public_version(bench: Bench) -> None:
    """A name that matches the index's globs is never downloaded from the public index."""
    make_wheel(bench.private.folder, "acme-tools", "1.0")
    make_wheel(bench.public.folder, "acme-tools", "99.0")
    make_wheel(bench.public.folder, "alpha", requires=("acme.tools",))
    recipe = bench.recipe("alpha", indexes=(bench.corp("acme-*"),))
    text = bench.lock(recipe)
    packages = {p["name"]: p for p in tomllib.loads(text)["packages"]}
    assert packages["acme-tools"]["version"] == "1.0"
    assert packages["acme-tools"]["wheels"][0]["url"].startswith(
        bench.private.url.removesuffix("simple/")
    )
    assert not [path for path in bench.public.asked if "acme" in path]


@pytest.mark.parametrize(
    "address", ["/f/acme_gpu-2.0%2Bcu118-py3-none-any.whl", "/get?file=7", '/"\\/a.whl']
)
def test_a_wheel_has_its_name_whatever_its_address_is(bench: Bench, address: str) -> None:
    """An address may be quoted or say nothing at all; the lock is readable, the wheel is found."""
    name = "acme_gpu-2.0+cu118-py3-none-any.whl"
    href = address.replace('"', "&quot;")
    page = f'<a href="{href}#sha256={"0" * 64}" data-core-metadata="true">{name}</a>'
    metadata = "Metadata-Version: 2.1\nName: acme-gpu\nVersion: 2.0+cu118\n"
    with served({"/simple/acme-gpu/": page}) as index:
        asked = address.replace('"', "%22")
        index.pages[f"{asked}.metadata"] = metadata
        bench.builder = bench.make_builder(allow_hosts=[index.host])
        indexes = (Index("gpu", f"{index.url}/simple/", ("acme-*",)),)
        lock = bench.lock(bench.recipe("acme-gpu", indexes=indexes))
        (package,) = read_lock("red", lock)
        wheel = locked(package, bench.runtime.tags)
        assert wheel is not None
        assert (wheel.filename, wheel.url) == (name, f"{index.url}{address}")


def test_a_private_name_that_is_missing_fails_rather_than_falls_through(bench: Bench) -> None:
    """If the private index lacks a name, the public one is not even asked."""
    make_wheel(bench.private.folder, "acme-other")
    make_wheel(bench.public.folder, "acme-tools", "99.0")
    error = refused(bench, "acme-tools", indexes=(bench.corp(),))
    assert isinstance(error, Stalled)
    assert (error.reason, error.place) == (Reason.NOT_FOUND, Place(FILE, 7))
    assert not [path for path in bench.public.asked if "acme" in path]


def test_wrong_credentials_name_the_index_and_not_the_password(bench: Bench) -> None:
    """If an index refuses, it is tried again, and the message says which secret to renew."""
    (bench.secrets / "red" / "corp" / "password").write_text("expired-" + PASSWORD)
    make_wheel(bench.private.folder, "acme-tools")
    error = refused(bench, "acme-tools", indexes=(bench.corp(),))
    assert isinstance(error, Retryable)
    assert (error.reason, error.place) == (Reason.INDEX_DENIED, Place(FILE, 7))
    assert "corp" in error.message
    assert PASSWORD not in str(error)


def test_a_missing_secret_says_where_it_belongs(bench: Bench) -> None:
    """A secret of another team is not used: the message names the team's own folder."""
    with pytest.raises(Stalled, match="secret corp of team blue") as caught:
        bench.lock(bench.recipe("acme-tools", indexes=(bench.corp(),)), bench.job("blue"))
    assert caught.value.reason == Reason.SECRET_MISSING


def test_an_index_that_is_down_is_tried_again_later(tmp_path: Path) -> None:
    """No answer means nothing about the requirements: the error can be retried."""
    with Bench(tmp_path, default_index="http://127.0.0.1:9/simple/") as bench:
        error = refused(bench, "alpha")
    assert isinstance(error, Retryable)
    assert error.reason == Reason.INDEX_UNREACHABLE


def needing(bench: Bench, requirement: str) -> SourcePackage:
    """Return an in-repo package whose build backend needs something of an index."""
    own = bench.package("acme-own", {"acme_own/__init__.py": ""})
    project = bench._trees[own.tree] / "pyproject.toml"
    project.write_text(
        project.read_text().replace("requires = []", f"requires = ['{requirement}']")
    )
    return own


@pytest.mark.parametrize(
    ("status", "secret", "reason"),
    [(503, None, "IndexUnreachable"), (401, None, "IndexDenied"), (403, "corp", "IndexDenied")],
)
def test_a_package_is_not_blamed_for_an_index_that_its_build_needs(
    bench: Bench, status: int, secret: str | None, reason: str
) -> None:
    """The same source builds once the index answers: it is tried again."""
    with served(missing=status) as index:
        bench.builder = bench.make_builder(allow_hosts=[index.host])
        tools = Index("tools", f"{index.url}/simple/", ("acme-tool",), secret)
        error = refused(bench, needing(bench, "acme-tool"), indexes=(tools,))
    assert isinstance(error, Retryable)
    assert error.reason == reason
    assert "index tools" in error.message


def test_a_build_is_not_given_a_public_package_for_one_of_the_repo(bench: Bench) -> None:
    """A build backend runs at once, so a stranger's package would run here."""
    make_wheel(bench.public.folder, "acme-tool", "99.0")
    internal = (("acme-tool", "teams/red/packages/tool"),)
    error = refused(bench, needing(bench, "acme-tool"), internal=internal)
    assert error.reason == Reason.NOT_LISTED
    assert "acme-tool (teams/red/packages/tool)" in error.message
    assert not [path for path in bench.public.asked if "acme-tool" in path]


def test_what_is_cached_of_one_index_is_not_taken_for_anothers(bench: Bench) -> None:
    """Two recipes with different indexes never share what uv has cached for a name and version."""
    make_wheel(bench.private.folder, "acme-tools", "1.0", requires=("acme-private",))
    make_wheel(bench.private.folder, "acme-private")
    make_wheel(bench.public.folder, "acme-tools", "1.0", requires=("alpha",))
    make_wheel(bench.public.folder, "alpha")
    private = bench.recipe("acme-tools", indexes=(bench.corp("acme-*"),))
    public = bench.recipe("acme-tools", indexes=(bench.corp("other-*"),))
    for _ in range(2):
        assert bench.names(private) == (("acme-private", "1.0"), ("acme-tools", "1.0"))
        assert bench.names(public) == (("acme-tools", "1.0"), ("alpha", "1.0"))


# ------------------------------------------------------------------------ nothing but the indexes


@pytest.mark.parametrize("team", ["red", "blue"])
def test_the_secret_of_an_airflow_api_is_not_sent_to_an_index(bench: Bench, team: str) -> None:
    """Environments accepted earlier are included: the daemon's builder checks at each use."""
    make_wheel(bench.private.folder, "acme-tools")
    settings = Settings(
        state_dir=bench.state,
        secrets_dir=bench.secrets,
        share=bench.share.root,
        builder=BuilderSettings(allow_hosts=[bench.private.host]),
    )
    wiring = Wiring(settings)
    instance = replace(bench.instance(), team=team, api=Api("http://127.0.0.1:1", "corp"))
    records = Records(instances={"dev": InstanceRecord("dev", team, instance)})
    wiring.records = lambda: records
    recipe = bench.recipe("acme-tools", indexes=(bench.corp(),))
    try:
        if team == "red":
            with pytest.raises(Stalled) as caught:
                wiring.builder.resolve(bench.job(), recipe, bench.runtime)
            assert caught.value.reason == Reason.CREDENTIALS_TAKEN
            assert bench.private.asked == []
        else:  # a secret of the same name, but of another team
            assert wiring.builder.resolve(bench.job(), recipe, bench.runtime).packages
    finally:
        wiring.store.close()


@pytest.mark.parametrize(
    "text",
    ["-r FILE", "--index-url URL", "--find-links FOLDER", "gamma @ URL", "-c FILE", "a\x0b-r FILE"],
)
def test_a_constraint_is_never_handed_on_as_it_is_written(bench: Bench, text: str) -> None:
    """Whatever a record contains, uv reads no file and requests no address because of it."""
    secret = bench.root / "secret"
    secret.write_text("S3cret line of the daemon\n")
    make_wheel(bench.private.folder, "gamma")
    make_wheel(bench.public.folder, "alpha")
    line = text.replace("FILE", str(secret)).replace("FOLDER", str(bench.private.folder))
    limits = (("teams/red/c.txt", line.replace("URL", bench.private.url)),)
    with pytest.raises(Stalled) as caught:
        bench.lock(bench.recipe("alpha", constraints=limits))
    assert caught.value.reason == Reason.NOT_ALLOWED
    assert caught.value.message.startswith("teams/red/c.txt holds ")
    assert holding("S3cret", bench.state) == []
    assert bench.private.asked == []


@pytest.mark.parametrize("address", ["https://127.0.0.1:9/x-1-py3-none-any.whl", "file:///etc/x"])
def test_an_in_repo_package_needs_nothing_by_an_address(bench: Bench, address: str) -> None:
    """It is reported at the package's requirement, before any request is made."""
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, (f"gamma @ {address}",))
    error = refused(bench, own)
    assert (error.reason, error.place) == (Reason.NOT_ALLOWED, own.place)
    assert "teams/red/packages/acme-own depends on gamma by an address" in error.message


def test_an_extra_of_an_in_repo_package_brings_what_it_needs(bench: Bench) -> None:
    """An extra has the same effect as in any package of an index."""
    make_wheel(bench.public.folder, "beta")
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, ("beta; extra == 'io'",))
    recipe = bench.recipe(own)
    assert bench.names(recipe) == (("acme-own", "1.0"),)
    (plain,) = recipe.requirements
    asked = replace(plain, text="acme-own[io]")
    names = bench.names(replace(recipe, requirements=(asked,)))
    assert names == (("acme-own", "1.0"), ("beta", "1.0"))


def test_an_extra_that_an_in_repo_package_lacks_is_refused(bench: Bench) -> None:
    """At its line, as the wheel says; an index's package may lack one, which is only logged."""
    make_wheel(bench.public.folder, "alpha")
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, ("alpha; 'I_O' == extra",))
    bare = bench.package("acme-bare", {"acme_bare.py": ""}, ("acme-own[sprak]",))

    def asking(text: str) -> Recipe:
        recipe = bench.recipe("alpha[missing]", own)
        listed, asked = recipe.requirements
        return replace(recipe, requirements=(listed, replace(asked, text=text)))

    assert bench.names(asking("acme-own[i.o]")) == (("acme-own", "1.0"), ("alpha", "1.0"))
    with pytest.raises(Stalled) as caught:
        bench.lock(asking("acme-own[i-o,sprak]"))
    assert (caught.value.reason, caught.value.place) == (Reason.INVALID_VALUE, Place(FILE, 8))
    assert "acme-own has no extra sprak (it has i-o)" in caught.value.message
    error = refused(bench, own, bare)
    assert (error.reason, error.place) == (Reason.INVALID_VALUE, bare.place)
    assert "packages/acme-bare needs acme-own[sprak], but acme-own has no extra" in error.message


def test_no_index_is_asked_for_an_in_repo_package_that_is_not_listed(bench: Bench) -> None:
    """Anybody could own its name on a public index; a described index or the base may have it."""
    make_wheel(bench.public.folder, "acme-lib", "99.0")
    make_wheel(bench.public.folder, "alpha", requires=("acme-lib",))
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, ("alpha",))
    internal = (("acme-lib", "teams/red/packages/lib"), ("acme-core", "teams/red/packages/core"))
    for wanted in ("alpha", own):
        error = refused(bench, wanted, internal=internal)
        assert (error.reason, error.place) == (Reason.NOT_LISTED, Place(FILE, 7))
        assert "acme-lib is in this repo, and no index was asked for it" in error.message
    assert not [path for path in bench.public.asked if "acme-lib" in path]
    make_wheel(bench.public.folder, "beta", requires=("acme-core",))
    assert bench.names(bench.recipe("beta", internal=internal)) == (("beta", "1.0"),)
    make_wheel(bench.private.folder, "acme-lib", "1.0")
    recipe = bench.recipe("alpha", internal=internal, indexes=(bench.corp("acme-*"),))
    assert bench.names(recipe) == (("acme-lib", "1.0"), ("alpha", "1.0"))


SPOILING = """
import pathlib, zipfile

class Spoiled(zipfile.ZipFile):
    def writestr(self, info, data):
        {member}
        super().writestr(info, data)

    def __exit__(self, *error):
        super().__exit__(*error)
        {whole}

zipfile.ZipFile = Spoiled
"""
NO_ZIP = "pathlib.Path(self.filename).write_bytes(b'no zip')"
SPOILED = [
    ("if info.filename.endswith('METADATA'): data = bytes(60 << 20)", "pass", "1048576 bytes"),
    ("if info.filename.endswith('METADATA'): data = b'Name: \\xff'", "pass", "not UTF-8"),
    ("if info.filename.endswith('METADATA'): return", "pass", "no METADATA"),
    ("if '.dist-info' in info.filename: return", "pass", "one .dist-info"),
    ("if info.filename.endswith('.py'): info.filename = '../evil.py'", "pass", "outside of it"),
    ("pass", NO_ZIP, "not a zip file"),
]


@pytest.mark.parametrize(("member", "whole", "words"), SPOILED)
def test_a_wheel_that_a_backend_spoils_is_refused_in_words(
    bench: Bench, member: str, whole: str, words: str
) -> None:
    """Whatever a build backend writes is its team's mistake: shown at its line, not read whole."""
    preamble = SPOILING.format(member=member, whole=whole)
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=preamble)
    for _ in range(2):  # built first, then from the cache
        error = refused(bench, own)
        assert isinstance(error, Stalled)
        assert error.reason == (Reason.UNSAFE_WHEEL if "outside" in words else Reason.INVALID_WHEEL)
        assert error.place == own.place
        assert error.message.startswith("teams/red/packages/acme-own builds a wheel")
        assert words in error.message
    tracemalloc.start()
    try:
        refused(bench, own)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "row",
    [
        'archive = { url = "https://h.example/g.whl" }',
        'vcs = { type = "git", url = "https://h.example/g" }',
        'directory = { path = "/etc" }',
    ],
)
def test_a_lock_that_names_an_address_is_not_built(bench: Bench, row: str) -> None:
    """A row that is neither from an index nor from the repo has a message of its own."""
    lock = f'lock-version = "1.0"\n[[packages]]\nname = "gamma"\nversion = "1.0"\n{row}\n'
    with pytest.raises(Stalled) as caught:
        bench.builder.construct(bench.job(), bench.recipe("gamma"), bench.runtime, lock)
    assert (caught.value.reason, caught.value.place) == (Reason.NOT_ALLOWED, Place(FILE, 7))
    assert "gamma would come from an address" in caught.value.message
