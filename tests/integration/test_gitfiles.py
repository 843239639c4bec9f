"""The files of the environments repo: what is a mistake, where it is found, and what it stops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from gitsource.models import EnvironmentModel, FragmentModel, InstanceModel
from gitsource.schema import REFERENCE, SCHEMA, reference, schema
from gitsource.validate import validate
from reconciler.core.definitions import Finding, ImportLimit, Measure, Place
from tests.fakes.gitrepo import ENVIRONMENT, INSTANCE, Repo, read, source

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
]  # fmt: skip


@pytest.mark.parametrize(("what", "old", "new", "line", "words"), MISTAKES, ids=str)
def test_a_mistake_is_found_at_its_line(
    what: str, old: str, new: str, line: int, words: str, repo: Repo
) -> None:
    """Each mistake stops its own object only, with the place and what to write instead."""
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
    """`true` is a boolean; what stands in quotes, and a mode or a version, stays text."""
    more = 'spec:\n  suspend: true\n  env: {A: "true", B: "7", C: 1.2.3, D: 0755, E: 2026-01-01}\n'
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("spec:\n", more))
    definitions, findings = validate(repo.path)
    assert findings == []
    assert definitions.environments["one"].suspend
    assert dict(definitions.environments["one"].recipe.env) == {
        "A": "true", "B": "7", "C": "1.2.3", "D": "0755", "E": "2026-01-01",
    }  # fmt: skip


def test_limits_have_places_and_are_no_part_of_the_recipe(repo: Repo) -> None:
    """A team's limit goes before a fragment's; neither makes another build wanted."""
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
    """A team cannot roll out to what is not its own."""
    repo.write("teams/blue/two.yaml", ENVIRONMENT.replace("{name: one}", "{name: two}"))
    (repo.path / "teams/red/one.yaml").unlink()
    found = only(validate(repo.path)[1])
    assert found.object == "Environment/two"
    assert "red" in found.message


def test_two_environments_cannot_name_one_instance(repo: Repo) -> None:
    """An instance has at most one environment."""
    repo.write("teams/red/two.yaml", ENVIRONMENT.replace("{name: one}", "{name: two}"))
    _, findings = validate(repo.path)
    assert any("dev" in f.message and f.place.line for f in findings)


def test_the_secret_of_an_airflow_api_is_sent_to_no_index(repo: Repo) -> None:
    """A team may not have the platform's credentials sent where it likes; its own it may."""
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
            assert finding.reason == "CredentialsTaken"
            assert finding.place.file == "teams/red/one.yaml"
            assert "instance dev's Airflow API" in finding.message


def test_an_alias_bomb_ends_at_once(repo: Repo) -> None:
    """Aliases are refused before they can grow."""
    lines = ["a: &a [x, x]"] + [
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(9)
    ]
    repo.write("teams/red/one.yaml", "\n".join(lines))
    assert only(validate(repo.path)[1]).place.line <= 2


def test_links_and_submodules_are_refused(repo: Repo, tmp_path: Path) -> None:
    """Neither is followed: each is a finding, and the rest goes on."""
    (repo.path / "teams/red/two.yaml").symlink_to("/etc/passwd")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},teams/red/sub.yaml")
    repo.git("add", "-A", "--", "instances", "teams/red/one.yaml", "teams/red/two.yaml")
    repo.git("commit", "-q", "-m", "links")
    found = source(tmp_path, str(repo.path)).poll()
    assert found is not None
    assert {f.place.file for f in found.findings} == {"teams/red/two.yaml", "teams/red/sub.yaml"}
    assert "one" in found.environments


def test_a_file_over_the_limit_is_refused(repo: Repo, tmp_path: Path) -> None:
    """A huge definition is never read."""
    repo.write("teams/red/big.yaml", "#" * 5000)
    repo.commit()
    found = source(tmp_path, str(repo.path), max_blob_bytes=2000).poll()
    assert found is not None
    assert only(found.findings).place.file == "teams/red/big.yaml"


def test_a_dag_inside_a_package_stops_only_its_team(repo: Repo, tmp_path: Path) -> None:
    """What the mirror does not read for a definition is a finding, and the rest goes on."""
    repo.write("teams/red/packages/x/dag.py", "")
    more = "spec:\n  checks: {dags: [packages/x/dag.py]}\n"
    bad = ENVIRONMENT.replace("spec:\n", more).replace("{name: one}", "{name: two}")
    repo.write("teams/red/two.yaml", bad.split("  rollout")[0])
    found = read(repo, tmp_path)
    assert only(found.findings).place == Place("teams/red/two.yaml", 5, 19)
    assert "one" in found.environments


@pytest.mark.parametrize("reserved", ["packages", "nothing"])
def test_a_team_called_packages_stops_nobody_else(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserved: str
) -> None:
    """Its file is a finding; also where only the mirror would refuse to read it."""
    monkeypatch.setattr("gitsource.objects.RESERVED", reserved)
    repo.write("teams/packages/two.yaml", ENVIRONMENT.replace("{name: one}", "{name: two}"))
    found = read(repo, tmp_path)
    assert only(found.findings).place.file == "teams/packages/two.yaml"
    assert "one" in found.environments


# ------------------------------------------------------------------------------- generated files


def test_the_schema_and_the_reference_are_current() -> None:
    """What is checked in is what the models say."""
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))
    assert REFERENCE.read_text() == reference()


def test_the_example_is_valid() -> None:
    """The example repo has no mistake, and each of its files fits the models."""
    _, findings = validate(ROOT / "environments.example")
    assert findings == []
    kind: TypeAdapter[object] = TypeAdapter(EnvironmentModel | InstanceModel | FragmentModel)
    for path in (ROOT / "environments.example").rglob("*.yaml"):
        assert kind.validate_python(yaml.safe_load(path.read_text())) is not None
