"""The environments repo on real git: what it refuses, and what becomes of every kind of trouble."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from gitsource.access import check_url
from gitsource.models import EnvironmentModel, FragmentModel, InstanceModel
from gitsource.schema import REFERENCE, SCHEMA, reference, schema
from gitsource.source import Source
from gitsource.triggers import watch
from gitsource.validate import validate
from reconciler.core.definitions import Definitions, Finding, ImportLimit, Measure, Place
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.settings import GitSettings

ROOT = Path(__file__).resolve().parents[2]
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
  rollout:
    - {instances: [dev]}
"""
TOKEN = "t0ken-of-the-test"


class Repo:
    """A repository with a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("instances/dev.yaml", INSTANCE)
        self.write("teams/red/one.yaml", ENVIRONMENT)

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *words]
        done = subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change", "--allow-empty")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "environments")


def source(tmp_path: Path, url: str, **settings: object) -> Source:
    (tmp_path / "secrets").mkdir(exist_ok=True)
    made = GitSettings(url=url, **settings)  # type: ignore[arg-type]
    return Source(made, tmp_path / "state", tmp_path / "secrets", tuple)  # as the daemon's


def read(repo: Repo, tmp_path: Path) -> Definitions:
    repo.commit()
    found = source(tmp_path, str(repo.path)).poll()
    assert found is not None
    return found


def only(findings: tuple[Finding, ...] | list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


# ------------------------------------------------------------------------------- mistakes in files

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


# ------------------------------------------------------------------------------------- the repo


def test_an_unchanged_repo_is_read_once(repo: Repo, tmp_path: Path) -> None:
    """A second poll finds nothing, and leaves no new process behind."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    assert one.poll() is not None
    assert one.poll() is None


def test_rewritten_history_is_followed(repo: Repo, tmp_path: Path) -> None:
    """After a force-push the branch's newest commit counts."""
    repo.commit()
    one = source(tmp_path, str(repo.path))
    one.poll()
    repo.git("checkout", "-q", "--orphan", "other")
    repo.write("teams/red/one.yaml", ENVIRONMENT.replace("humanize", "attrs"))
    revision = repo.commit()
    repo.git("branch", "-f", "main", "other")
    found = one.poll()
    assert found is not None
    assert found.commit.revision == revision
    assert found.environments["one"].recipe.requirements[0].text == "attrs"


def test_a_deleted_branch_and_an_empty_repo_say_so(repo: Repo, tmp_path: Path) -> None:
    """Neither is taken for a revision without definitions."""
    with pytest.raises(Retryable) as caught:
        source(tmp_path, str(repo.path)).poll()
    assert caught.value.reason == "SourceEmpty"
    repo.commit()
    repo.git("branch", "-m", "main", "other")
    with pytest.raises(Retryable) as caught:
        source(tmp_path, str(repo.path)).poll()
    assert caught.value.reason == "BranchMissing"


def test_a_scheme_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    """Commands in an address never reach git."""
    for url in ("ext::sh -c id", "http://h.example/x.git", "--upload-pack=id"):
        with pytest.raises(GroundcrewError) as caught:
            source(tmp_path, url).poll()
        assert isinstance(caught.value, Stalled), url


@pytest.mark.parametrize(
    ("url", "file"),
    [
        (f"https://{TOKEN}@h.example/x.git", "git/token"),
        (f"https://me:{TOKEN}@h.example/x.git", "git/token"),
        (f"https://me:pass/{TOKEN}@h.example/x.git", "git@host:path"),
        (f"ssh://git:{TOKEN}@h.example/x.git", "git/ssh-privatekey"),
    ],
)
def test_a_secret_in_the_address_is_refused_and_not_shown(
    url: str, file: str, tmp_path: Path
) -> None:
    """The words name the file to use instead; the token is neither there nor in a log of git's."""
    with pytest.raises(Stalled) as caught:
        source(tmp_path, url).poll()
    assert caught.value.reason == "SourceUnknown"
    assert file in caught.value.message
    assert TOKEN not in caught.value.message
    with pytest.raises(Stalled) as caught:
        watch(url, lambda: None)
    assert TOKEN not in caught.value.message


@pytest.mark.parametrize(
    "words",
    ["https://h.example:8443/a@b.git", "ssh://git@h.example/x", "git@h.example:x", "file:///a@b"],
)
def test_an_address_without_a_secret_is_taken(words: str) -> None:
    """An ssh user is no secret, and what looks like user info in a path is none."""
    check_url(words, ("https", "ssh", "file"))


def test_a_remote_that_is_down_or_hangs_ends_in_time(tmp_path: Path) -> None:
    """A closed port and a server that never answers are both something to try again."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(Retryable) as caught:
        source(tmp_path, f"https://127.0.0.1:{port}/x.git").poll()
    assert caught.value.reason == "SourceUnreachable"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/x.git"
        with pytest.raises(Retryable) as caught:
            source(tmp_path, url, timeout=1.0).poll()
    assert "within 1 s" in caught.value.message


def test_hooks_and_the_users_configuration_are_ignored(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a global setting nor a hook of the machine runs anything."""
    home = tmp_path / "home"
    home.mkdir()
    marker = tmp_path / "ran"
    (home / ".gitconfig").write_text(
        f'[core]\n  sshCommand = touch {marker}\n[alias]\n  fetch = "!touch {marker}"\n'
        f'[url "/nowhere"]\n  insteadOf = {repo.path}\n'
    )
    monkeypatch.setenv("HOME", str(home))
    assert read(repo, tmp_path).environments
    assert not marker.exists()


def test_a_commit_in_a_local_repo_wakes_at_once(repo: Repo) -> None:
    """The watcher calls when a ref changes."""
    repo.commit()
    woken = threading.Event()
    watcher = watch(str(repo.path), woken.set)
    assert watcher is not None
    try:
        repo.commit()
        assert woken.wait(timeout=10)
    finally:
        watcher.close()


# ------------------------------------------------------------------------------------ credentials


@pytest.fixture
def served(repo: Repo) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The repo behind `git http-backend` with basic auth; its URL, and the users that came."""
    repo.commit()
    wanted = "Basic " + b64encode(f"git:{TOKEN}".encode()).decode()
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def _serve(self) -> None:
            given = self.headers.get("Authorization", "")
            seen.append(given)
            if given != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                capture_output=True,
                env={
                    **os.environ, "GIT_PROJECT_ROOT": str(repo.path.parent), "PATH_INFO": path,
                    "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": self.command,
                    "QUERY_STRING": query, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
                check=False,
            )  # fmt: skip
            head, _, rest = done.stdout.partition(b"\r\n\r\n")
            self.send_response(200)
            for line in head.decode().splitlines():
                name, _, value = line.partition(": ")
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(rest)

        do_GET = do_POST = _serve  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/environments/.git", lambda: seen
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def test_a_token_opens_the_repo_and_is_kept_nowhere(
    served: tuple[str, Callable[[], list[str]]], tmp_path: Path
) -> None:
    """The token comes from its file; it is neither in the mirror nor in a message."""
    url, _ = served
    secret = tmp_path / "secrets" / "git"
    secret.mkdir(parents=True)
    (secret / "token").write_text(TOKEN + "\n")
    allowed = ("http",)
    assert source(tmp_path, url, allow_schemes=allowed).poll() is not None
    kept = [p for p in (tmp_path / "state").rglob("*") if p.is_file()]
    assert kept
    assert not [p for p in kept if TOKEN.encode() in p.read_bytes()]
    (secret / "token").write_text("wr0ng-one")
    with pytest.raises(Retryable) as caught:
        source(tmp_path, url, allow_schemes=allowed).poll()
    assert caught.value.reason == "SourceDenied"
    assert "wr0ng-one" not in caught.value.message


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
