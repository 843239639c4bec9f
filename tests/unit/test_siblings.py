"""Packages of the repo that are needed and not listed: named before any index is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitsource import parsers, projects
from gitsource.assemble import Assembly
from gitsource.parsers import IsolatedParser
from gitsource.projects import Project, read_projects
from gitsource.tree import Checkout
from reconciler.core.definitions import Commit, Definitions
from reconciler.core.reasons import Reason
from reconciler.isolation import Limits, Pool

APP, LIB = "teams/red/packages/app", "teams/red/packages/lib"


def environment(*requirements: str, more: str = "") -> str:
    rows = "".join(f'    - "{text}"\n' for text in requirements)
    head = "apiVersion: groundcrew/v1\nkind: Environment\nmetadata: {name: one}\n"
    return f"{head}spec:\n  requirements:\n{rows}{more}"


def project(name: str, *needs: str, more: str = "") -> str:
    return f"[project]\nname = '{name}'\ndependencies = {list(needs)}\n{more}"


class Repo:
    """Checkout whose definitions are updated from revision to revision."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.assembly = Assembly()

    def write(self, **files: str) -> None:
        """Write the project files of in-repo packages, and the environment as `one`."""
        for name, text in files.items():
            path = f"packages/{name}/pyproject.toml" if name != "one" else "one.yaml"
            self.put(f"teams/red/{path}", text)

    def put(self, path: str, text: str) -> str:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)
        return path

    def read(self, *changed: str) -> Definitions:
        return self.assembly.update(Checkout(self.root), Commit("r"), changed or None)

    def messages(self, reason: Reason = Reason.NOT_LISTED) -> list[str]:
        findings = self.read().findings
        assert {finding.reason for finding in findings} <= {reason}
        return [f"{finding.place.line}: {finding.message}" for finding in findings]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path)


def test_what_an_own_package_needs_from_the_repo_is_named(repo: Repo) -> None:
    """At the package's requirement, with the line to add; and what that one needs in turn."""
    repo.write(
        app=project("acme-app", "Acme_Lib>=1", "humanize"),
        lib=project("acme-lib", "acme-core"),
        core=project("acme-core"),
        one=environment("humanize", "acme-app @ ./packages/app"),
    )
    first, second = repo.messages()
    assert first.startswith(f"7: {APP} needs acme-lib; acme-lib is in this repo")
    assert "add `acme-lib @ ./packages/lib` to the requirements" in first
    assert second.startswith(f"7: {LIB} needs acme-core;")
    repo.write(
        one=environment(*(f"acme-{name} @ ./packages/{name}" for name in ("app", "lib", "core")))
    )
    assert repo.messages() == []


@pytest.mark.parametrize("wanted", ["acme-lib", "Acme.Lib[x]>=1", "acme_lib; python_version>'3'"])
def test_a_requirement_that_is_a_package_of_the_repo_is_named(repo: Repo, wanted: str) -> None:
    repo.write(lib=project("acme-lib"), one=environment(wanted))
    (message,) = repo.messages()
    assert message.startswith("6: acme-lib is in this repo, and no index is asked for it")


def test_a_package_of_the_platform_is_named_by_its_way_there(repo: Repo) -> None:
    repo.put("shared/packages/base/pyproject.toml", project("acme-base"))
    repo.write(one=environment("acme-base"))
    (message,) = repo.messages()
    assert "`acme-base @ ../../shared/packages/base`" in message
    repo.write(one=environment("acme-base @ ../../shared/packages/base"))
    assert repo.messages() == []


def test_an_index_that_is_described_for_the_name_may_have_it(repo: Repo) -> None:
    index = "  indexes: [{name: corp, url: 'https://h.example/', packages: ['Acme_*']}]\n"
    repo.write(lib=project("acme-lib"), one=environment("acme-lib", more=index))
    assert repo.messages() == []
    assert repo.read().environments["one"].recipe.internal == ()


def test_packages_of_another_team_have_no_effect(repo: Repo) -> None:
    """A team could stop another one otherwise, by choosing the name of a public package."""
    repo.put("teams/blue/packages/x/pyproject.toml", project("humanize"))
    repo.put("teams/red/packages/app/tests/x/pyproject.toml", project("humanize"))
    repo.write(one=environment("humanize"))
    assert repo.messages() == []


def test_what_a_workspace_has_elsewhere_is_named(repo: Repo) -> None:
    """Only uv's own table tells that such a name is internal."""
    for source in ("{workspace = true}", "{path = '../lib'}", "[{path = '../lib', extra = 'x'}]"):
        sources = f"[tool.uv.sources]\nacme_lib = {source}\n"
        repo.write(
            app=project("acme-app", "acme-lib", more=sources),
            one=environment("acme-app @ ./packages/app"),
        )
        (message,) = repo.messages()
        assert "needs acme-lib; commit acme-lib to this repo" in message


def test_a_package_that_comes_or_goes_changes_the_environments_beside_it(repo: Repo) -> None:
    """Whatever was read before; the names are known to the build, but not part of its digest."""
    repo.write(one=environment("humanize"))
    before = repo.read().environments["one"].recipe
    assert before.internal == ()
    path = repo.put("teams/red/packages/lib/setup.py", "")
    after = repo.read(path).environments["one"].recipe
    assert after.internal == (("lib", LIB),)
    assert after.digest == before.digest
    path = repo.put("teams/red/packages/lib/pyproject.toml", project("humanize"))
    assert [finding.reason for finding in repo.read(path).findings] == ["NotListed"]
    (repo.root / path).unlink()
    (repo.root / LIB / "setup.py").unlink()
    assert repo.read(path, f"{LIB}/setup.py").environments["one"].recipe == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "\udcff",
        "project = 1",
        "[project]\nname = 1\ndependencies = 2",
        "[project]\ndependencies = [1, '[', {}]\n[tool]\nuv = []\npoetry = 'x'",
        "a = " + "[" * 9999,
    ],
)
def test_a_project_file_that_cannot_be_read_leaves_the_folders_name(text: str) -> None:
    (package,) = read_projects([("teams/red/packages/Acme_Lib", text.encode(errors="replace"))])
    assert package == Project("teams/red/packages/Acme_Lib", "acme-lib")


def test_the_table_of_poetry_is_read(repo: Repo) -> None:
    poetry = "[tool.poetry]\nname = 'acme-app'\n[tool.poetry.dependencies]\nacme-lib = '*'\n"
    repo.write(app=poetry, lib=project("acme-lib"), one=environment("acme-app @ ./packages/app"))
    (message,) = repo.messages()
    assert "needs acme-lib" in message


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("./packages/app", "acme-app @ ./packages/app"),
        ("-e ./packages/app[io]", "acme-app[io] @ ./packages/app"),
        ("--editable=packages/app", "acme-app @ ./packages/app"),
        ("app @ packages/app", "acme-app @ ./packages/app"),
        ("file:packages/app", "acme-app @ ./packages/app"),
        ("./packages/plain", "plain @ ./packages/plain"),
        ("../blue/packages/other", "other @ ../blue/packages/other"),
    ],
)
def test_the_advice_for_a_path_has_the_projects_name(repo: Repo, line: str, right: str) -> None:
    """A package without a project file has the name of its folder, and so has another team's."""
    repo.put("teams/red/packages/plain/setup.py", "")
    repo.put("teams/blue/packages/other/pyproject.toml", project("secret"))
    repo.write(app=project("Acme_App"), one=environment("humanize", line))
    (message,) = repo.messages(Reason.INVALID_VALUE)
    assert message == (f"7: spec.requirements[1]: {line}: write an in-repo package as `{right}`")


def test_the_advice_for_a_path_follows_the_project(repo: Repo) -> None:
    """It is given anew when only the project file has changed."""
    repo.write(app=project("first"), one=environment("./packages/app", "./packages/app ; x"))
    assert "`first @ ./packages/app`" in repo.read().findings[0].message
    path = repo.put(f"{APP}/pyproject.toml", project("second"))
    first, second = repo.read(path).findings
    assert "`second @ ./packages/app`" in first.message
    assert "cannot have markers" in second.message


def test_a_package_is_called_by_the_name_of_its_project(repo: Repo) -> None:
    """Its build would have told so later."""
    repo.write(app=project("acme-app"), one=environment("app[B,a] @ ./packages/app"))
    (message,) = repo.messages(Reason.INVALID_VALUE)
    assert message == (
        f"6: the package at {APP} is called acme-app in its pyproject.toml, not app; write "
        f"`acme-app[a,b] @ ./packages/app`"
    )
    repo.write(one=environment("Acme.App @ ./packages/app"))
    assert repo.messages() == []
    repo.write(app="[build-system]\nrequires = []\n", one=environment("any @ ./packages/app"))
    assert repo.messages() == [], "its name is known to its build alone"


EXTRAS = "[project.optional-dependencies]\nI_O = []\nspark = ['pyspark']\n"
POETRY = "[tool.poetry.extras]\nspark = ['pyspark']\n"


@pytest.mark.parametrize(
    ("project_file", "known"),
    [
        (project("app", more=EXTRAS), "it has i-o, spark"),
        (project("app", more=POETRY), "it has spark"),
        (f"[tool.poetry]\nname = 'app'\n{POETRY}", "it has spark"),
        (project("app"), "it has none"),
        (project("app", more="dynamic = ['version']\n"), "it has none"),
        (project("app", more="dynamic = ['optional-dependencies']\n"), ""),
        (project("app", more="dynamic = 1\n"), ""),
        ("[project]\n", ""),
    ],
)
def test_an_extra_that_the_project_lacks_is_named(
    repo: Repo, project_file: str, known: str
) -> None:
    """At its line; where only the build knows them, it is the build that says so."""
    repo.write(app=project_file, one=environment("app[sprak] @ ./packages/app"))
    messages = repo.messages(Reason.INVALID_VALUE)
    wanted = f"6: app has no extra sprak ({known}); correct the name, or add it to "
    assert [message.partition("[project")[0] for message in messages] == [wanted] * bool(known)
    for extra in ("i.o", "Spark") if "i-o" in known else ():
        repo.write(one=environment(f"app[{extra}] @ ./packages/app"))
        assert repo.messages() == []


def endless(given: object) -> list[Project]:
    while True:
        pass


def test_project_files_that_take_too_long_count_by_their_folders(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The team's environments are read all the same."""
    monkeypatch.setattr(parsers, "read_projects", endless)
    pool = Pool(Limits(cpu=1))
    repo.assembly = Assembly(parser=IsolatedParser(pool))
    try:
        repo.write(lib=project("acme-lib"), one=environment("humanize"))
        assert repo.read().environments["one"].recipe.internal == (("lib", LIB),)
    finally:
        pool.close()


def test_only_so_many_packages_of_a_folder_are_looked_at(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects, "FOLDER_LIMIT", 2)
    repo.write(**dict.fromkeys(("a", "b", "c"), ""), one=environment("humanize"))
    assert len(repo.read().environments["one"].recipe.internal) == 2
