"""The files of the environments repo: mistakes, their places, and what they stop."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from gitsource.models import EnvironmentModel, FragmentModel, InstanceModel
from gitsource.schema import REFERENCE, SCHEMA, reference, schema
from gitsource.validate import validate
from reconciler.core.definitions import Finding, ImportLimit, Measure, Place
from reconciler.core.reasons import Reason
from tests.harness.git_repo import ENVIRONMENT, INSTANCE, Repo, read, source

ROOT = Path(__file__).resolve().parents[2]


def only(findings: tuple[Finding, ...] | list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


MISTAKES: list[tuple[str, str, str, int, str]] = [
    ("an unknown key", "  requirements:", "  requirement:", 5, "did you mean requirements"),
    ("a wrong type", "[humanize]", "humanize", 5, "list"),
    ("a duplicate key", "spec:\n", "spec:\n  suspend: true\n  suspend: false\n", 6, "suspend"),
    ("a boolean in other words", "spec:\n", "spec:\n  suspend: no\n", 5, "write false"),
    ("a name that leads out", "{name: one}", "{name: ../one}", 3, "name"),
    ("a file requirement", "[humanize]", '["x @ file:///etc/passwd"]', 5, "x"),
    ("a git requirement", "[humanize]", '["x @ git+https://h.example/x"]', 5, "x"),
    ("a url requirement", "[humanize]", '["x @ https://h.example/x.whl"]', 5, "x"),
    ("a package outside", "[humanize]", '["x @ ../blue/packages/x"]', 5, "x"),
    ("a package that is not there", "[humanize]", '["x @ ./packages/x"]', 5, "packages/x"),
    ("no requirement at all", "[humanize]", '["=="]', 5, "=="),
    ("an unknown fragment", "spec:\n", "spec:\n  extends: [none]\n", 5, "none"),
    ("an unknown instance", "[dev]", "[prod]", 7, "prod"),
    ("a quoted boolean", "spec:\n", 'spec:\n  suspend: "true"\n', 5, "suspend"),
    ("a number for a text", "spec:\n", "spec:\n  env: {ROOM: 7}\n", 5, "in quotes"),
    ("a boolean for a text", "spec:\n", "spec:\n  env: {LOUD: true}\n", 5, '"true"'),
    ("an alias", "[humanize]", "&a [humanize]\n  constraints: *a", 5, ""),
    ("a broken file", "spec:", "spec: [", 5, ""),
    ("a limit of nothing", "spec:\n", "spec:\n  checks: {importBudget: {files: 0}}\n", 5, "files"),
    ("a size in bytes", "spec:\n", "spec:\n  checks: {importBudget: {bytes: 20000}}\n", 5, "200Mi"),
    ("a limit that is none", "spec:\n", "spec:\n  checks: {importBudget: {file: 9}}\n", 5, "files"),
]


@pytest.mark.parametrize(("what", "old", "new", "line", "words"), MISTAKES, ids=str)
def test_a_mistake_is_found_at_its_line(
    what: str, old: str, new: str, line: int, words: str, repo: Repo
) -> None:
    """Each mistake only stops its own object, with the place and what to write instead."""
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace(old, new, 1))
    definitions, findings = validate(repo.path)
    assert findings, what
    first = findings[0]
    assert first.place.file == "teams/red/one.yaml"
    assert abs(first.place.line - line) <= 2, first
    assert words in first.message
    assert "one" not in definitions.environments
    assert "dev" in definitions.instances


def test_plain_words_and_numbers_are_what_they_look_like(repo: Repo) -> None:
    """`true` is a boolean; quoted text, a file mode and a version stay text."""
    more = 'spec:\n  suspend: true\n  env: {A: "true", B: "7", C: 1.2.3, D: 0755, E: 2026-01-01}\n'
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("spec:\n", more))
    definitions, findings = validate(repo.path)
    assert findings == []
    assert definitions.environments["one"].suspend
    assert dict(definitions.environments["one"].recipe.env) == {
        "A": "true",
        "B": "7",
        "C": "1.2.3",
        "D": "0755",
        "E": "2026-01-01",
    }


def test_limits_have_places_and_are_no_part_of_the_recipe(repo: Repo) -> None:
    """A team's limit overrides a fragment's; neither causes another build."""
    plain = validate(repo.path)[0].environments["one"].recipe
    text = "apiVersion: groundcrew/v1\nkind: Fragment\nmetadata: {name: base}\nspec:\n  checks:\n"
    repo.write("shared/base.yaml", text + "    importBudget: {files: 900, bytes: 200Mi}\n")
    budget = "spec:\n  extends: [base]\n  checks:\n    importBudget:\n"
    budget += "      time: 1m\n      files: 400\n"
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("spec:\n", budget))
    definitions, findings = validate(repo.path)
    assert findings == []
    recipe = definitions.environments["one"].recipe
    assert recipe.checks.budget == (
        ImportLimit(Measure.FILES, 400.0, Place("teams/red/one.yaml", 9, 14)),
        ImportLimit(Measure.BYTES, float(200 << 20), Place("shared/base.yaml", 6, 39)),
        ImportLimit(Measure.SECONDS, 60.0, Place("teams/red/one.yaml", 8, 13)),
    )
    assert recipe.digest == plain.digest


def test_an_instance_of_another_team_is_refused(repo: Repo) -> None:
    """A team cannot roll out to instances of another team."""
    repo.write("teams/blue/two.yaml", ENVIRONMENT.replace("{name: one}", "{name: two}"))
    (repo.path / "teams/red/one.yaml").unlink()
    finding = only(validate(repo.path)[1])
    assert finding.object == "Environment/two"
    assert "red" in finding.message


def test_two_environments_cannot_name_one_instance(repo: Repo) -> None:
    """An instance has at most one environment."""
    repo.write("teams/red/two.yaml", ENVIRONMENT.replace("{name: one}", "{name: two}"))
    _, findings = validate(repo.path)
    assert any("dev" in f.message and f.place.line for f in findings)


def test_the_secret_of_an_airflow_api_is_sent_to_no_index(repo: Repo) -> None:
    """A team may not send the platform's credentials to an index, but it may send its own."""
    api = '"http://127.0.0.1:8080"'
    repo.write("instances/dev.yaml", INSTANCE.replace(api, f"{api}, credentials: red-airflow"))
    for secret in ("red-airflow", "red-pypi"):
        index = f"{{name: corp, url: 'https://h.example/', packages: [x], credentials: {secret}}}"
        text = ENVIRONMENT.replace("[humanize]\n", f"[humanize]\n  indexes: [{index}]\n")
        repo.write("teams/red/one.yaml", text)
        _, report = validate(repo.path)
        if secret == "red-pypi":
            assert not report
        else:
            finding = only(report)
            assert finding.reason == Reason.CREDENTIALS_TAKEN
            assert finding.place.file == "teams/red/one.yaml"
            assert "instance dev's Airflow API" in finding.message


def test_an_alias_bomb_ends_at_once(repo: Repo) -> None:
    """Aliases are refused before they can multiply."""
    lines = ["a: &a [x, x]"] + [
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(9)
    ]
    repo.write("teams/red/one.yaml", "\n".join(lines))
    assert only(validate(repo.path)[1]).place.line <= 2


def test_links_and_submodules_are_refused(repo: Repo, tmp_path: Path) -> None:
    """Neither is followed: each is a finding, and the rest is read."""
    (repo.path / "teams/red/two.yaml").symlink_to("/etc/passwd")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},teams/red/sub.yaml")
    repo.git("add", "-A", "--", "instances", "teams/red/one.yaml", "teams/red/two.yaml")
    repo.git("commit", "-q", "-m", "links")
    definitions = source(tmp_path, str(repo.path)).poll()
    assert definitions is not None
    assert {f.place.file for f in definitions.findings} == {
        "teams/red/two.yaml",
        "teams/red/sub.yaml",
    }
    assert "one" in definitions.environments


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4" * 64 + "\nsize 5242880\n"
OWN = ENVIRONMENT.replace("[humanize]", '["own @ ./packages/own"]')


def both(repo: Repo, tmp_path: Path) -> list[Finding]:
    """Return the findings of `validate`, after checking that the daemon has the same."""
    findings = sorted(validate(repo.path)[1], key=str)
    assert sorted(read(repo, tmp_path).findings, key=str) == findings
    return findings


@pytest.mark.parametrize("marked", [True, False])
def test_a_pointer_of_lfs_is_refused_at_its_line(repo: Repo, tmp_path: Path, marked: bool) -> None:
    """The finding is the same with and without attributes, in a checkout and in the daemon."""
    repo.write("teams/red/one.yaml", OWN)
    repo.write("teams/red/packages/own/pyproject.toml", "")
    repo.write("teams/red/packages/own/own/table.parquet", POINTER)
    if marked:
        repo.write(".gitattributes", "*.parquet filter=lfs diff=lfs merge=lfs -text\n")
    finding = only(both(repo, tmp_path))
    assert (finding.reason, finding.place) == (
        Reason.LFS_POINTER_REFUSED,
        Place("teams/red/one.yaml", 5, 18),
    )
    assert "packages/own/own/table.parquet is a Git LFS pointer" in finding.message


@pytest.mark.parametrize("file", ["constraints.txt", "dags/one.py", "ca.pem"])
def test_a_pointer_of_lfs_is_no_text_either(repo: Repo, tmp_path: Path, file: str) -> None:
    """Every file that a definition names is checked."""
    repo.write(f"teams/red/{file}", POINTER)
    more = {
        "constraints.txt": "  constraints: [constraints.txt]\n",
        "dags/one.py": "  checks: {dags: [dags/one.py]}\n",
        "ca.pem": "  indexes: [{name: a, url: 'https://h/', packages: [x], caBundle: ca.pem}]\n",
    }
    repo.write("teams/red/one.yaml", ENVIRONMENT + more[file])
    assert only(both(repo, tmp_path)).reason == Reason.LFS_POINTER_REFUSED


def test_a_definition_that_lfs_keeps_elsewhere_is_told(repo: Repo, tmp_path: Path) -> None:
    """The place is the definition's own file."""
    repo.write("teams/red/two.yaml", POINTER)
    finding = only(both(repo, tmp_path))
    assert (finding.reason, finding.place.file) == (
        Reason.LFS_POINTER_REFUSED,
        "teams/red/two.yaml",
    )


def test_what_lfs_has_checked_out_is_a_pointer_to_everybody_else(repo: Repo) -> None:
    """A checkout may have the file itself, but git and the daemon have the pointer."""
    repo.write("teams/red/one.yaml", OWN)
    repo.write("teams/red/packages/own/pyproject.toml", "")
    repo.write("teams/red/packages/own/own/model.bin", POINTER)
    repo.write("teams/red/packages/own/own/small.bin", "committed before the attributes")
    repo.commit()
    repo.write(".gitattributes", "*.bin filter=lfs\n")
    repo.git("-c", "filter.lfs.clean=cat", "add", "-A")
    repo.write("teams/red/packages/own/own/model.bin", "\0" * 9000)
    assert "own/model.bin is a Git LFS pointer" in only(validate(repo.path)[1]).message


def test_what_git_ignores_is_no_part_of_a_package(repo: Repo, tmp_path: Path) -> None:
    """A virtual environment in a package is full of links, and does not matter."""
    repo.write("teams/red/one.yaml", OWN)
    repo.write(".gitignore", ".venv/\n*.cache\n")
    repo.write("teams/red/packages/own/pyproject.toml", "")
    repo.write("teams/red/packages/own/.venv/pyvenv.cfg", "")
    (repo.path / "teams/red/packages/own/.venv/python").symlink_to("/usr/bin/python3")
    repo.write("teams/red/packages/own/big.cache", "x" * 70_000_000)
    before = validate(repo.path)[0].environments["one"]
    assert both(repo, tmp_path) == []
    repo.write("teams/red/packages/own/other.cache", "y")
    assert validate(repo.path)[0].environments["one"] == before


def test_a_virtual_environment_that_is_not_ignored_is_named(repo: Repo, tmp_path: Path) -> None:
    """Its links would be the first thing in the way, and nobody should commit them as files."""
    repo.write("teams/red/one.yaml", OWN)
    repo.write("teams/red/packages/own/pyproject.toml", "")
    repo.write("teams/red/packages/own/.tox/py311/pyvenv.cfg", "")
    (repo.path / "teams/red/packages/own/.tox/py311/python").symlink_to("/usr/bin/python3")
    finding = only(both(repo, tmp_path))
    assert finding.reason == Reason.NOT_ALLOWED
    assert "packages/own/.tox/py311 is a virtual environment; list it in" in finding.message


def test_a_link_or_a_repository_inside_of_a_package_is_told_alike(
    repo: Repo, tmp_path: Path
) -> None:
    """A file that is not ignored would be part of a commit."""
    repo.write("teams/red/one.yaml", OWN)
    repo.write("teams/red/packages/own/pyproject.toml", "")
    (repo.path / "teams/red/packages/own/data").symlink_to("../../../../instances")
    assert only(both(repo, tmp_path)).reason == Reason.SYMLINK_REFUSED
    (repo.path / "teams/red/packages/own/data").unlink()
    Repo(repo.path / "teams/red/packages/own/inner").commit()
    (tmp_path / "again").mkdir()
    assert only(both(repo, tmp_path / "again")).reason == Reason.SUBMODULE_REFUSED


def test_a_file_that_was_deleted_is_gone_before_the_commit(repo: Repo) -> None:
    """A deleted file that git still tracks is not read."""
    repo.commit()
    (repo.path / "teams/red/one.yaml").unlink()
    assert validate(repo.path)[0].environments == {}


def test_a_folder_that_git_knows_nothing_of_is_read_as_it_is(repo: Repo, tmp_path: Path) -> None:
    """An archive of a repo has no history; a folder that another repo ignores stands alone."""
    files = tmp_path / "outer" / "ignored" / "files"
    files.parent.mkdir(parents=True)
    shutil.copytree(repo.path, files, ignore=shutil.ignore_patterns(".git"))
    assert "one" in validate(files)[0].environments
    subprocess.run(["git", "init", "-q", str(tmp_path / "outer")], check=True)
    (tmp_path / "outer" / ".gitignore").write_text("ignored/\n")
    assert "one" in validate(files)[0].environments


def test_nothing_of_a_checkouts_configuration_is_run(repo: Repo, tmp_path: Path) -> None:
    """`validate` may be called on a checkout that somebody else made."""
    mark = tmp_path / "mark"
    repo.git("config", "core.fsmonitor", f"touch {mark}; false")
    repo.git("config", "filter.lfs.clean", f"touch {mark}; cat")
    repo.write(".gitattributes", "* filter=lfs\n")
    validate(repo.path)
    assert not mark.exists()


def test_a_file_over_the_limit_is_refused(repo: Repo, tmp_path: Path) -> None:
    """A huge definition is never read."""
    repo.write("teams/red/big.yaml", "#" * 5000)
    repo.commit()
    definitions = source(tmp_path, str(repo.path), max_blob_bytes=2000).poll()
    assert definitions is not None
    assert only(definitions.findings).place.file == "teams/red/big.yaml"


def test_a_dag_inside_a_package_stops_only_its_team(repo: Repo, tmp_path: Path) -> None:
    """A definition in a place that the mirror does not read is a finding, and the rest is read."""
    repo.write("teams/red/packages/x/dag.py", "")
    more = "spec:\n  checks: {dags: [packages/x/dag.py]}\n"
    bad = ENVIRONMENT.replace("spec:\n", more).replace("{name: one}", "{name: two}")
    repo.write("teams/red/two.yaml", bad.split("  rollout")[0])
    definitions = read(repo, tmp_path)
    assert only(definitions.findings).place == Place("teams/red/two.yaml", 5, 19)
    assert "one" in definitions.environments


@pytest.mark.parametrize("reserved", ["packages", "nothing"])
def test_a_team_called_packages_stops_nobody_else(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserved: str
) -> None:
    """Its file is a finding, even where only the mirror would refuse to read it."""
    monkeypatch.setattr("gitsource.objects.RESERVED", reserved)
    repo.write("teams/packages/two.yaml", ENVIRONMENT.replace("{name: one}", "{name: two}"))
    definitions = read(repo, tmp_path)
    assert only(definitions.findings).place.file == "teams/packages/two.yaml"
    assert "one" in definitions.environments


# ------------------------------------------------------------------------------- generated files


def test_the_schema_and_the_reference_are_current() -> None:
    """The files in the repository are what the models generate."""
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))
    assert REFERENCE.read_text() == reference()


def test_the_example_is_valid() -> None:
    """The example repo has no mistake, and each of its files fits the models."""
    _, findings = validate(ROOT / "environments.example")
    assert findings == []
    kind: TypeAdapter[object] = TypeAdapter(EnvironmentModel | InstanceModel | FragmentModel)
    for path in (ROOT / "environments.example").rglob("*.yaml"):
        assert kind.validate_python(yaml.safe_load(path.read_text())) is not None
