"""Invalid definitions: each is a finding with its place, and nothing else stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gitsource import assemble, fields, recipe, schema, shared_files, strictyaml, typed
from gitsource.validate import validate
from reconciler.cli import main
from reconciler.core.definitions import Broken, Definitions, Finding, Place, Wave
from reconciler.core.reasons import Reason
from tests.fakes.definitions import environment
from tests.harness.git_repo import INSTANCE
from tests.harness.git_repo import NOWHERE as ENVIRONMENT

SHA = "0" * 64


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Return a repo with an instance and the environment of another team."""
    write(tmp_path, "instances/dev.yaml", INSTANCE)
    write(tmp_path, "teams/blue/good.yaml", ENVIRONMENT.replace("one", "good"))
    return tmp_path


def write(repo: Path, name: str, text: str | bytes) -> None:
    """Write one file of the repo."""
    (repo / name).parent.mkdir(parents=True, exist_ok=True)
    (repo / name).write_bytes(text.encode() if isinstance(text, str) else text)


def refused(repo: Path, text: str | bytes, file: str = "teams/red/one.yaml") -> Finding:
    """Return the first finding of a file that must be refused while everything else is accepted."""
    write(repo, file, text)
    definitions, findings = validate(repo)
    assert "good" in definitions.environments
    assert "dev" in definitions.instances or file.startswith("instances/")
    assert "one" not in definitions.environments
    assert findings
    return findings[0]


def taken(repo: Path, spec: str) -> Definitions:
    """Return the definitions with `spec` in the environment, which must have no finding."""
    write(repo, "teams/red/one.yaml", ENVIRONMENT + spec)
    definitions, findings = validate(repo)
    assert findings == []
    return definitions


# ----------------------------------------------------------------------------------------- paths

OUTSIDE = [
    "/etc/x",
    ".//etc/x",
    "./",
    ".",
    "..",
    "./../x",
    "a/../../x",
    "a//b",
    "a/",
    "a/./b",
    "././x",
    "a\\\\b",
    "a\\0b",
    "a\\nb",
    "a" * 256,
    "é" * 128,
]


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
    """No path leaves its folder, is empty or has an impossible file name."""
    finding = refused(repo, ENVIRONMENT + spec.replace("PATH", path))
    assert finding.place.line == 6
    assert "write " in finding.message or "remove it" in finding.message


def test_a_leading_dot_is_no_part_of_a_path(repo: Path) -> None:
    """`./bin/x` is `bin/x`."""
    spec = f'  files: [{{url: "https://h.example/x", sha256: "{SHA}", path: ./bin/x}}]\n'
    (file,) = taken(repo, spec).environments["one"].recipe.files
    assert file.target == "bin/x"


@pytest.mark.parametrize("other", ["a", "a/b", "a/b/c/d", "jars/x-1.jar", "jars"])
def test_files_that_cannot_be_side_by_side_are_refused(repo: Path, other: str) -> None:
    """Two files at one path, or one below another, are reported before anything is fetched."""
    spec = (
        f'  files:\n    - {{url: "https://h.example/x", sha256: "{SHA}", path: a/b/c}}\n'
        f'    - {{jar: "g:x:1", sha256: "{SHA}"}}\n'
        f'    - {{url: "https://h.example/x", sha256: "{SHA}", path: a-b}}\n'
        f'    - {{url: "https://h.example/y", sha256: "{SHA}", path: {other}}}\n'
    )
    finding = refused(repo, ENVIRONMENT + spec)
    assert finding.place.line in (7, 8, 10)
    assert other in finding.message


def test_a_file_that_a_fragment_has_too_counts_once(repo: Path) -> None:
    """A team may name a jar exactly as its fragment does."""
    jar = f'  files: [{{jar: "g:x:1", sha256: "{SHA}"}}]\n'
    fragment = "apiVersion: groundcrew/v1\nkind: Fragment\nmetadata: {name: base}\nspec:\n"
    write(repo, "shared/base.yaml", fragment + jar)
    recipe = taken(repo, "  extends: [base]\n" + jar).environments["one"].recipe
    assert [file.target for file in recipe.files] == ["jars/x-1.jar"]


# --------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (f"  checks: {{timeout: {'9' * 310}d}}", "at most 366d"),
        ("  checks: {timeout: 366d1s}", "at most 366d"),
        ("  checks: {importBudget: {time: 367d}}", "at most 366d"),
        (f"  rollout: [{{instances: [dev], soak: {'9' * 20}m}}]", "at most 366d"),
        (f"  checks: {{importBudget: {{files: {'9' * 400}}}}}", "from 1 to 1000000000"),
        ("  checks: {importBudget: {opens: 1000000001}}", "from 1 to 1000000000"),
        ("  checks: {importBudget: {opens: 0}}", "from 1 to 1000000000"),
        ("  checks: {importBudget: {opens: true}}", "from 1 to 1000000000"),
        (f"  checks: {{importBudget: {{bytes: {'9' * 400}Gi}}}}", "200Mi"),
        (f"  checks: {{importBudget: {{files: 1{'0' * 5000}}}}}", "digits"),
        (f"  checks: {{importBudget: {{files: {'9' * 390}.0}}}}", "from 1 to 1000000000"),
    ],
)
def test_numbers_have_bounds(repo: Path, spec: str, words: str) -> None:
    """No number in a definition is too large to be recorded, and the bound is reported."""
    finding = refused(repo, ENVIRONMENT + spec)
    assert finding.place.line == 6
    assert words in finding.message


def test_the_longest_duration_is_taken(repo: Path) -> None:
    """A year and a day is accepted."""
    checks = taken(repo, "  checks: {timeout: 366d}\n").environments["one"].recipe.checks
    assert checks.timeout == 366 * 86400.0


# --------------------------------------------------------------------- mistakes stay in their file

BAD: list[tuple[str, str | bytes, int]] = [
    ("a kind that is a list", ENVIRONMENT.replace("kind: Environment", "kind: [Environment]"), 2),
    ("a kind that is a map", ENVIRONMENT.replace("kind: Environment", "kind: {a: b}"), 2),
    ("a long number", ENVIRONMENT + f"  suspend: 1{'0' * 5000}\n", 6),
    ("NUL in a path", ENVIRONMENT.replace("[humanize]", '["foo @ ./pack\\0ages"]'), 5),
    ("NUL in a name", ENVIRONMENT.replace("{name: one}", '{name: "a\\0b"}'), 3),
    ("NUL in a key", ENVIRONMENT + '  "a\\0b": 1\n', 6),
    ("NUL in a value", ENVIRONMENT + '  env: {A: "a\\0b"}\n', 6),
    ("an escape in a value", ENVIRONMENT + '  env: {A: "\\e[31m"}\n', 6),
    ("a raw control character", ENVIRONMENT + "  env: {ä: \x01}\n", 6),
    ("a surrogate", ENVIRONMENT + '  env: {A: "\\uD800"}\n', 6),
    ("bytes", b"\xff\xfe\x00", 1),
    ("a scalar", "7", 1),
    ("a list", "[]", 1),
    ("a folded requirement", ENVIRONMENT.replace("[humanize]", '["a\\n--pre"]'), 5),
]


@pytest.mark.parametrize(("what", "text", "line"), BAD, ids=[w for w, _, _ in BAD])
@pytest.mark.parametrize("file", ["teams/red/one.yaml", "instances/x.yaml", "shared/x.yaml"])
def test_a_malformed_file_is_its_own_finding(
    repo: Path, file: str, what: str, text: str | bytes, line: int
) -> None:
    """Whatever one file contains, it is reported with its line, and every other file is read."""
    finding = refused(repo, text, file)
    assert finding.place.file == file, what
    assert finding.place.line == line
    assert finding.message.isprintable()


def test_a_name_that_is_too_long_for_the_history_is_not_told(repo: Path) -> None:
    """A finding about an overlong name is attributed to its file."""
    finding = refused(repo, ENVIRONMENT.replace("{name: one}", f"{{name: {'a' * 5000}}}"))
    assert finding.object == "teams/red/one.yaml"


def test_a_teams_folder_is_called_like_a_team(repo: Path) -> None:
    """An invalid team name is a finding at the team's first file."""
    finding = refused(repo, ENVIRONMENT, f"teams/{'r' * 100}/one.yaml")
    assert "team's folder" in finding.message


def test_no_team_is_called_packages(repo: Path) -> None:
    """A team's CI reports what the daemon would: it reads nothing below packages/."""
    finding = refused(repo, ENVIRONMENT, "teams/packages/one.yaml")
    assert "a team cannot be named packages" in finding.message


def test_what_nobody_foresaw_is_the_finding_of_its_file(
    repo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug triggered by one file stops only that file, and the log has its traceback."""
    parse = strictyaml.parse

    def broken(path: str, text: str) -> object:
        if path == "teams/red/one.yaml":
            raise ZeroDivisionError("of the test")
        return parse(path, text)

    monkeypatch.setattr(typed, "parse", broken)
    finding = refused(repo, ENVIRONMENT)
    assert finding.place.file == "teams/red/one.yaml"
    assert finding.reason == Reason.READ_FAILED
    assert "of the test" in caplog.text
    monkeypatch.undo()
    real = recipe.merge

    def failing(read: typed.ReadFile, *more: object) -> object:
        if read.path == "teams/red/one.yaml":
            raise ZeroDivisionError("of the test")
        return real(read, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(assemble, "merge", failing)
    assert refused(repo, ENVIRONMENT).object == "Environment/one"


# ------------------------------------------------------------------------------------- constraints

NO_CONSTRAINT = [
    ("-r /etc/passwd", "add /etc/passwd to the key `constraints`"),
    ("-c other.txt", "constraints: [other.txt]"),
    ("--index-url https://h.example/", "describe the index in the key `indexes`"),
    ("--extra-index-url=https://h.example/", "url: https://h.example/"),
    ("--find-links /", "no folder of wheels is searched"),
    ("-e .", "write name==version"),
    ("a @ https://h.example/a.whl", "a path or an address; write a==version"),
    ("a @ file:///etc/passwd", "a path or an address"),
    ("https://h.example/a.whl", "a path or an address"),
    ("./a.whl", "a path or an address"),
    ("a[b]<2", "extras; write a<2"),
    ("a<2 \\", "write each constraint in one line"),
    ("a==1 --hash=sha256:00", "write a==1 alone"),
    ("a<<2", "its versions cannot be read"),
    ('a = "^1.2"', "write a>=1.2,<2"),
    ("${HOME}", "variables are not replaced"),
    ('a<2; os_name == "\x1b"', "a control character"),
]


@pytest.mark.parametrize(("line", "words"), NO_CONSTRAINT)
def test_a_constraints_file_holds_versions_only(repo: Path, line: str, words: str) -> None:
    """Options, URLs, extras and the like are reported with the file's line."""
    write(repo, "teams/red/c.txt", f"# ours\nnumpy<2  # for now\n\n{line}\nb<2\n")
    finding = refused(repo, ENVIRONMENT + "  constraints: [c.txt]\n")
    assert finding.message.startswith("teams/red/c.txt:4: ")
    assert words in finding.message
    assert (finding.place.file, finding.place.line) == ("teams/red/one.yaml", 6)


def test_constraints_are_taken_as_they_were_parsed(repo: Path) -> None:
    """Comments and blank lines are dropped."""
    write(repo, "teams/red/c.txt", "# ours\r\nnumpy < 2  # for now\n\n  b>=1;python_version<'4'\n")
    recipe = taken(repo, "  constraints: [c.txt]\n").environments["one"].recipe
    assert recipe.constraints == (("teams/red/c.txt", 'numpy<2\nb>=1; python_version < "4"'),)


def test_a_fragments_mistake_is_told_at_the_environment(repo: Path) -> None:
    """An environment with an invalid fragment stays as accepted, like one with a broken file."""
    fragment = "apiVersion: groundcrew/v1\nkind: Fragment\nmetadata: {name: base}\nspec:\n"
    write(repo, "shared/base.yaml", fragment + "  constraints: [none.txt]\n")
    finding = refused(repo, ENVIRONMENT + "  extends: [base]\n")
    assert (finding.place.file, finding.place.line) == ("teams/red/one.yaml", 6)
    assert finding.message.startswith("shared/base.yaml:5:17: shared/none.txt is not in the repo")
    known = environment("one", "g1", (Wave(("a",)),))
    broken = Broken(validate(repo)[0], [known])
    assert broken.by(known) == finding, "so it is not deleted"


# --------------------------------------------------------------------------- packages of the repo


def test_a_package_has_a_number_of_files(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each build writes them to disk, and a commit may have millions that are empty."""
    write(repo, "teams/red/own/pyproject.toml", "[project]\nname = 'own'\n")
    for number in range(3):
        write(repo, f"teams/red/own/own/m{number}.py", "")
    text = ENVIRONMENT.replace("[humanize]", '["own @ ./own"]')
    monkeypatch.setattr(shared_files, "PACKAGE_FILES", 3)
    found = refused(repo, text)
    assert (found.reason, found.place.line) == ("TooLarge", 5)
    assert "has 4 files; a package may have 3" in found.message
    monkeypatch.setattr(shared_files, "PACKAGE_FILES", 4)
    assert validate(repo)[0].environments["one"].recipe.packages


# -------------------------------------------------------------------------- environment variables


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "AIRFLOW_HOME",
        "AIRFLOW_CONFIG",
        "AIRFLOW__CORE__EXECUTOR",
        "LD_PRELOAD",
        "PYTHONHOME",
        "GROUNDCREW_BUILD",
        "A=B",
        "",
        "A B",
        "A\\n",
    ],
)
def test_a_variable_that_changes_python_or_airflow_is_refused(repo: Path, name: str) -> None:
    """A team's variables are its own; code, configuration and homes belong to the base."""
    assert refused(repo, ENVIRONMENT + f'  env: {{"{name}": "x"}}\n').place.line == 6


def test_variables_that_no_process_could_start_with_are_refused(repo: Path) -> None:
    """Their total size is limited: otherwise a child of Airflow could not be started."""
    spec = "  env:\n" + "".join(f"    A{n}: {'x' * 7000}\n" for n in range(10))
    finding = refused(repo, ENVIRONMENT + spec)
    assert (finding.reason, finding.place.line) == (Reason.TOO_LARGE, 7)


def test_variables_of_the_teams_own_programs_are_taken(repo: Path) -> None:
    """Connections, proxies, certificates and the like stay possible."""
    names = ["AIRFLOW_CONN_X", "HTTPS_PROXY", "SSL_CERT_FILE", "PATHS", "TZ", "HOMEPAGE"]
    spec = f"  env: {{{', '.join(f'{name}: x' for name in names)}}}\n"
    assert dict(taken(repo, spec).environments["one"].recipe.env).keys() == set(names)


# --------------------------------------------------------------------------------------- messages

SAID = [
    ("spec: 7", "spec: write keys with values below it, such as `key: value`, not 7"),
    ("spec:", "spec: write keys with values below it, such as `key: value`, not nothing"),
    ("spec: {requirements: x}", "spec.requirements: write a list, such as [one, two], not 'x'"),
    ("spec: {requirements: [[a]]}", "spec.requirements[0]: write a text, not ['a']"),
    ("spec: {requirements: ['']}", "spec.requirements[0]: write something, or remove the item"),
    ("spec: {suspend: 1}", "spec.suspend: write true or false, not 1"),
    ("spec: {env: [a]}", "spec.env: write keys with values below it"),
    ("spec: {sourceBuilds: [-a]}", "write a package's name such as zope.interface, not '-a'"),
    ("spec: {indexes: [{name: My_Index, url: 'https://h/', packages: [b]}]}", "my-index would do"),
    ("spec: {env: {JOBS: 7}}", 'spec.env.JOBS: write it in quotes: "7"'),
    ("spec: {env: {LD_PRELOAD: x}}", "sets it where Airflow is started"),
    ("spec: {env: {PYTHONPATH: x}}", "commit the modules as an in-repo package"),
    ("spec: {env: {AIRFLOW__CORE__PARALLELISM: x}}", "in the configuration of Airflow"),
    ("spec: {env: {PATH: x}}", "programs that `files` puts below bin/ are found"),
    (
        "spec: {requirements: ['-i https://me:pw@h.example/simple']}",
        "url: https://h.example/simple",
    ),
    ("spec: {files: [{jar: 'o.x:y:jar:sources:1.0', sha256: a}]}", "here o.x:y:1.0:sources"),
    (
        "spec: {files: [{jar: 'o.x:y:1.0:all@jar', sha256: a}]}",
        "write it without the @: o.x:y:1.0:all",
    ),
    (
        "spec: {files: [{jar: 'https://h.example/y.jar', sha256: a}]}",
        "has `url` and `path` instead",
    ),
    ("spec: {files: [{url: 'https://h/x', sha256: a, path: /usr/lib/x}]}", "such as usr/lib/x"),
    ("spec: {rollout: [{instances: []}]}", "write at least one item, or remove the key"),
    ("spec: {files: [{jar: x, sha256: a}]}", "write group:artifact:version or group:art"),
    ("spec: {checks: {imports: [a-b]}}", "write a module's name such as acme.operators, not 'a-b'"),
    ("spec: {indexes: [{name: a, url: 'https://[', packages: [b]}]}", "write an address such as"),
    (
        "spec: {indexes: [{name: a, url: 'https://h:x/', packages: [b]}]}",
        "write an address such as",
    ),
    ("spec: {indexes: [{name: a, url: 'https://h ost/', packages: [b]}]}", "write an address such"),
    ("spec: {indexes: [{name: a, url: 'https://h%00/', packages: [b]}]}", "write an http:// or"),
]


@pytest.mark.parametrize(("spec", "words"), SAID)
def test_a_finding_says_what_to_write_instead(repo: Path, spec: str, words: str) -> None:
    """It uses the terms of the definition, not of the library that reads it."""
    refused(repo, ENVIRONMENT.split("spec:")[0] + spec)
    message = "\n".join(finding.message for finding in validate(repo)[1])
    assert words in message
    assert ":pw@" not in message
    assert "should" not in message


def test_the_words_for_an_instance(repo: Path) -> None:
    """Choices are listed, and paths are described."""
    text = INSTANCE.replace("name: dev", "name: x").replace("python: /p", "python: p")
    text = text.replace("{scheduler:", "{clock:") + (
        "  loadInto: []\n  maintenance: {drain: {onTimeout: stop}}\n"
    )
    write(repo, "instances/x.yaml", text)
    said = "\n".join(f.message for f in validate(repo)[1])
    for phrase in (
        "write a path that begins with /, not 'p'",
        "write one of scheduler, dag-processor",
        "loadInto: write at least one item",
        "onTimeout: write abort or proceed, not 'stop'",
    ):
        assert phrase in said


def test_a_definition_where_none_is_read_is_told(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`validate` says so, and where it belongs; any other YAML is ignored."""
    write(repo, "teams/red/prod/one.yaml", ENVIRONMENT)
    write(repo, "instances/eu/dev.yaml", INSTANCE)
    write(repo, "teams/red/dags/settings.yaml", "a: 1\n")
    assert main(["validate", str(repo)]) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" is not read: ")[0] for line in told[:-1]] == [
        "instances/eu/dev.yaml",
        "teams/red/prod/one.yaml",
    ]


def test_packages_are_called_as_their_authors_spell_them(repo: Path) -> None:
    """Capitals, dots and underscores are as valid as the normalised name."""
    spec = "  sourceBuilds: [SQLObject, ruamel.yaml.clib, jaraco_text, A.-_b]\n"
    recipe = taken(repo, spec).environments["one"].recipe
    assert recipe.source_builds == ("a-b", "jaraco-text", "ruamel-yaml-clib", "sqlobject")


JARS = [
    ("org.x:y:1.0", "org/x/y/1.0/y-1.0.jar"),
    ("org.x:y-core_2.12:3.5.0+b1", "org/x/y-core_2.12/3.5.0+b1/y-core_2.12-3.5.0+b1.jar"),
    ("org.x:y:1.0:shaded", "org/x/y/1.0/y-1.0-shaded.jar"),
    ("org.x:y:jar:1.0", None),
    ("org.x:y:1.0:a:b", None),
]


@pytest.mark.parametrize(("jar", "address"), JARS)
def test_a_jar_may_have_a_classifier(repo: Path, jar: str, address: str | None) -> None:
    """The classifier is part of its file's name, in the repository and on the share."""
    spec = f"  files: [{{jar: '{jar}', sha256: '{SHA}'}}]\n"
    if address is None:
        assert "group:artifact:version:classifier" in refused(repo, ENVIRONMENT + spec).message
        return
    (item,) = taken(repo, spec).environments["one"].recipe.files
    assert item.jar_address == address
    assert item.target == f"jars/{address.rpartition('/')[2]}"


@pytest.mark.parametrize(
    ("url", "path", "refusal"),
    [
        ("https://h.example/a_1.0_linux.tar.gz?x=1", "bin/a", "a_1.0_linux.tar.gz is an archive"),
        ("https://h.example/A.ZIP", "bin/a", "is an archive"),
        ("https://h.example/a.deb", "bin/a", "cannot be started as bin/a"),
        ("https://h.example/a.tgz", "share/a.tgz", ""),
        ("https://h.example/a.zip", "bin/a.pyz", ""),
        ("https://h.example/a.gz", "bin/a", ""),
        ("https://h.example/a", "bin/a", ""),
    ],
)
def test_an_archive_is_no_program(repo: Path, url: str, path: str, refusal: str) -> None:
    """It is reported at its line, before anything is fetched; elsewhere it is kept as it is."""
    spec = f"  files:\n    - {{url: '{url}', sha256: '{SHA}', path: {path}}}\n"
    if not refusal:
        taken(repo, spec)
        return
    finding = refused(repo, ENVIRONMENT + spec)
    assert (finding.reason, finding.place.line) == (Reason.NOT_A_PROGRAM, 7)
    assert refusal in finding.message


@pytest.mark.parametrize(
    ("text", "extras"),
    [("acme @ ./packages/acme", "acme"), ("Acme[X_y, a]@./packages/acme", "Acme[a,x-y]")],
)
def test_an_own_package_has_extras(repo: Path, text: str, extras: str) -> None:
    """They are part of the requirement, in one spelling."""
    write(repo, "teams/red/packages/acme/pyproject.toml", "")
    more = f"  requirements: ['{text}']\n"
    spec = ENVIRONMENT.replace("  requirements: [humanize]\n", more)
    write(repo, "teams/red/one.yaml", spec)
    definitions, findings = validate(repo)
    assert findings == []
    (requirement,) = definitions.environments["one"].recipe.requirements
    assert (requirement.text, requirement.package) == (extras, "teams/red/packages/acme")


@pytest.mark.parametrize(
    ("file", "object_", "subject", "team"),
    [
        ("teams/red/one.yaml", "Environment/one", "environment/one", "red"),
        ("teams/red/One.yaml", "teams/red/One.yaml", "teams/red/One.yaml", "red"),
        ("teams/one.yaml", "teams/one.yaml", "teams/one.yaml", ""),
        ("instances/dev.yaml", "Instance/dev", "instance/dev", ""),
        ("shared/a.yaml", "Fragment/a", "fragment/a", ""),
    ],
)
def test_a_finding_says_what_it_is_about_and_whose_it_is(
    file: str, object_: str, subject: str, team: str
) -> None:
    """History and metrics name it alike; a file's name is not changed."""
    finding = Finding(Place(file), object_, Reason.READ_FAILED, "words")
    assert (finding.subject, finding.team) == (subject, team)


def test_every_pattern_of_a_field_has_words_for_people() -> None:
    """Otherwise an invalid value would be a bug in Groundcrew, and stop its reader."""
    assert set(_patterns(schema.schema())) - set(fields.WRITE) == set()


def _patterns(found: object) -> Iterator[str]:
    if isinstance(found, dict):
        if isinstance(found.get("pattern"), str):
            yield found["pattern"]
        for value in found.values():
            yield from _patterns(value)
    elif isinstance(found, list):
        for value in found:
            yield from _patterns(value)


def test_every_list_of_a_definition_has_a_length() -> None:
    """Otherwise a short file could repeat the same items and cause much work."""
    endless = {
        (title, key)
        for title, model in schema.schema()["$defs"].items()
        for key, value in model.get("properties", {}).items()
        for kind in (value, *value.get("anyOf", ()))
        if (kind.get("type") == "array" and "maxItems" not in kind)
        or ("additionalProperties" in kind and "maxProperties" not in kind)
    }
    assert not endless


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (f"  extends: [{', '.join(['base'] * 51)}]", "spec.extends: write at most 50 items"),
        (f"  sourceBuilds: [{', '.join(['a'] * 201)}]", "spec.sourceBuilds: write at most 200"),
        (f"  env: {{{', '.join(f'A{n}: x' for n in range(501))}}}", "spec.env: write at most 500"),
        (f"  checks: {{imports: [{', '.join(['a'] * 1001)}]}}", "imports: write at most 1000"),
    ],
    ids=lambda value: value[:12],
)
def test_a_list_that_is_too_long_is_told_where_it_begins(repo: Path, spec: str, words: str) -> None:
    finding = refused(repo, ENVIRONMENT + spec)
    assert (finding.place.line, finding.reason) == (6, Reason.INVALID_VALUE)
    assert words in finding.message


# ---------------------------------------------------------------------------- building from source


def test_what_builds_are_given_is_part_of_the_recipe(repo: Path) -> None:
    """Lines and files of constraints, and variables; without them a recipe keeps its digest."""
    plain = taken(repo, "").environments["one"].recipe
    empty = taken(repo, "  build: {}\n").environments["one"].recipe
    assert empty.digest == plain.digest
    write(repo, "teams/red/build.txt", "cython<3.1  # for now\nwheel\n")
    spec = "  build: {constraints: ['setuptools < 80', build.txt], env: {CFLAGS: -O1}}\n"
    recipe = taken(repo, spec).environments["one"].recipe
    assert recipe.build_constraints == ("setuptools<80", "cython<3.1", "wheel")
    assert recipe.build_env == (("CFLAGS", "-O1"),)
    other = taken(repo, spec.replace("O1", "O2")).environments["one"].recipe
    assert len({plain.digest, recipe.digest, other.digest}) == 3


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "PYTHONPATH",
        "UV_INDEX_URL",
        "PIP_INDEX_URL",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "GIT_SSH_COMMAND",
        "TMPDIR",
        "AWS_SECRET_ACCESS_KEY",
        "NETRC",
        "BASH_ENV",
    ],
)
def test_a_variable_that_no_compiler_reads_is_refused_for_builds(repo: Path, name: str) -> None:
    """Names come from an allow-list, which is told."""
    finding = refused(repo, ENVIRONMENT + f"  build: {{env: {{{name}: x}}}}\n")
    assert f"{name} may not be set for builds; write one of CFLAGS, " in finding.message


def test_variables_of_compilers_and_backends_are_taken(repo: Path) -> None:
    """Flags, versions that would come from git, and choices of a package's build."""
    names = [
        "CC",
        "MYSQLCLIENT_LDFLAGS",
        "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_ACME",
        "MAX_JOBS",
        "YARL_NO_EXTENSIONS",
        "PDM_BUILD_SCM_VERSION",
        "USE_CUDA",
    ]
    spec = f"  build: {{env: {{{', '.join(f'{name}: x' for name in names)}}}}}\n"
    assert [n for n, _ in taken(repo, spec).environments["one"].recipe.build_env] == sorted(names)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("'-c old/x.txt'", "without the option: build: {constraints: [x.txt]}"),
        ("'a @ https://h/a.whl'", "write a==version"),
        ("../x.txt", "without .."),
        ("none.txt", "is not in the repo"),
    ],
)
def test_a_constraint_of_a_build_is_a_version_or_a_file(repo: Path, line: str, part: str) -> None:
    """Nothing that leads uv away gets into it."""
    finding = refused(repo, ENVIRONMENT + f"  build: {{constraints: [{line}]}}\n")
    assert part in finding.message
