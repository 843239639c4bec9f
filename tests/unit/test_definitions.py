"""What a definition may not hold: each is a finding with its place, and nothing else stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitsource.validate import validate
from reconciler.core.definitions import Definitions, Finding

INSTANCE = """\
apiVersion: groundcrew/v1
kind: Instance
metadata: {name: dev}
spec:
  team: red
  local: {python: /p, airflowHome: /h, components: {scheduler: {restart: ["true"]}}}
  api: {url: "http://127.0.0.1:8080"}
"""
ENVIRONMENT = """\
apiVersion: groundcrew/v1
kind: Environment
metadata: {name: one}
spec:
  requirements: [humanize]
"""
SHA = "0" * 64


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repo with an instance and the environment of another team."""
    write(tmp_path, "instances/dev.yaml", INSTANCE)
    write(tmp_path, "teams/blue/good.yaml", ENVIRONMENT.replace("one", "good"))
    return tmp_path


def write(repo: Path, name: str, text: str | bytes) -> None:
    """Write one file of the repo."""
    (repo / name).parent.mkdir(parents=True, exist_ok=True)
    (repo / name).write_bytes(text.encode() if isinstance(text, str) else text)


def refused(repo: Path, text: str | bytes, file: str = "teams/red/one.yaml") -> Finding:
    """The first finding of a file that must not be taken; everything else is."""
    write(repo, file, text)
    definitions, findings = validate(repo)
    assert "good" in definitions.environments
    assert "dev" in definitions.instances or file.startswith("instances/")
    assert "one" not in definitions.environments
    assert findings
    return findings[0]


def taken(repo: Path, spec: str) -> Definitions:
    """The definitions with `spec` in the environment, which must be without a finding."""
    write(repo, "teams/red/one.yaml", ENVIRONMENT + spec)
    definitions, findings = validate(repo)
    assert findings == []
    return definitions


# ------------------------------------------------------------------------------------- the paths

OUTSIDE = [
    "/etc/x", ".//etc/x", "./", ".", "..", "./../x", "a/../../x", "a//b", "a/", "a/./b", "././x",
    "a\\\\b", "a\\0b", "a\\nb", "a" * 256, "é" * 128,
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize(
    "spec",
    [
        f'  files: [{{url: "https://h.example/x", sha256: "{SHA}", path: "PATH"}}]\n',
        '  constraints: ["PATH"]\n',
        '  checks: {dags: ["PATH"]}\n',
        '  indexes: [{name: a, url: "https://h.example/", packages: [x], caBundle: "PATH"}]\n',
    ],
    ids=["files", "constraints", "dags", "caBundle"],
)
def test_a_path_that_is_not_below_its_folder_is_refused(repo: Path, spec: str, path: str) -> None:
    """No path leaves its folder, is empty or has a name that no file can have."""
    found = refused(repo, ENVIRONMENT + spec.replace("PATH", path))
    assert found.place.line == 6
    assert "write " in found.message or "is no" in found.message


def test_a_leading_dot_is_no_part_of_a_path(repo: Path) -> None:
    """`./bin/x` is `bin/x`."""
    spec = f'  files: [{{url: "https://h.example/x", sha256: "{SHA}", path: ./bin/x}}]\n'
    (file,) = taken(repo, spec).environments["one"].recipe.files
    assert file.target == "bin/x"


@pytest.mark.parametrize("other", ["a", "a/b", "a/b/c/d", "jars/x-1.jar", "jars"])
def test_files_that_cannot_be_side_by_side_are_refused(repo: Path, other: str) -> None:
    """Two files of one path, or one below another, are told before anything is fetched."""
    spec = (
        f'  files:\n    - {{url: "https://h.example/x", sha256: "{SHA}", path: a/b/c}}\n'
        f'    - {{jar: "g:x:1", sha256: "{SHA}"}}\n'
        f'    - {{url: "https://h.example/x", sha256: "{SHA}", path: a-b}}\n'
        f'    - {{url: "https://h.example/y", sha256: "{SHA}", path: {other}}}\n'
    )
    found = refused(repo, ENVIRONMENT + spec)
    assert found.place.line in (7, 8, 10)
    assert other in found.message


def test_a_file_that_a_fragment_has_too_counts_once(repo: Path) -> None:
    """A team may name a jar that its fragment names just so."""
    jar = f'  files: [{{jar: "g:x:1", sha256: "{SHA}"}}]\n'
    fragment = "apiVersion: groundcrew/v1\nkind: Fragment\nmetadata: {name: base}\nspec:\n"
    write(repo, "shared/base.yaml", fragment + jar)
    recipe = taken(repo, "  extends: [base]\n" + jar).environments["one"].recipe
    assert [file.target for file in recipe.files] == ["jars/x-1.jar"]
