"""`groundcrew plan --base` with a real git repository, uv and indexes, and without a daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.api.documents import runtimes_document
from reconciler.cli import main
from reconciler.core.model import InstanceRecord, Records
from tests.fakes.base import write_package
from tests.fakes.receiver import Receiver, Said
from tests.harness.builder import Bench
from tests.harness.wheels import make_wheel

INSTANCE = """\
apiVersion: groundcrew/v1
kind: Instance
metadata: {{name: {name}}}
spec:
  team: red
  local:
    python: /opt/airflow/bin/python
    airflowHome: /opt/airflow
    components: {{scheduler: {{restart: [/bin/true]}}}}
  api: {{url: "http://127.0.0.1:8080"}}
{more}"""
ENVIRONMENT = """\
apiVersion: groundcrew/v1
kind: Environment
metadata: {{name: {name}}}
spec:
  requirements:
{requirements}
  indexes:
    - {{name: corp, url: "{corp}", packages: ["acme-*"]}}
  rollout:
{rollout}
"""
WINDOW = '  maintenance: {window: {cron: "0 2 29 2 *", duration: 1m, timezone: Europe/Berlin}}\n'


class Repo:
    """A checkout of an environments repo with branch main, and the inputs of `plan`."""

    def __init__(self, root: Path, bench: Bench) -> None:
        self.root = root
        self.bench = bench
        self.runtimes = root.parent / "runtimes.json"
        self.git("init", "--quiet", "--initial-branch=main")
        for name in ("dev", "prod"):
            self.write(
                f"instances/{name}.yaml",
                INSTANCE.format(name=name, more=WINDOW if name == "prod" else ""),
            )
        self.environment("alpha")
        self.commit("first")
        self.git("checkout", "--quiet", "-b", "change")
        records = Records(
            instances={
                name: InstanceRecord(name, "red", bench.instance(), bench.runtime)
                for name in ("dev", "prod")
            }
        )
        self.runtimes.write_text(json.dumps(runtimes_document(records)))

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=A. Author", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=self.root, check=True, timeout=60)

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def environment(self, *wanted: str, rollout: str = "", name: str = "one") -> None:
        lines = "\n".join(f"    - {line}" for line in wanted)
        waves = rollout or "    - {instances: [dev], soak: 10m}\n    - {instances: [prod]}"
        text = ENVIRONMENT.format(
            name=name, requirements=lines, corp=self.bench.public.url, rollout=waves
        )
        self.write(f"teams/red/{name}.yaml", text)

    def commit(self, subject: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", subject)

    def plan(self, *more: str) -> int:
        return main(
            [
                "plan",
                "--base",
                "main",
                "--path",
                str(self.root),
                "--runtimes",
                str(self.runtimes),
                "--advisories",
                "off",
                *more,
            ]
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in [n for n in os.environ if n.startswith("GROUNDCREW_")]:
        monkeypatch.delenv(name)
    with Bench(tmp_path / "bench", {"acme-core": "2.0"}) as bench:
        monkeypatch.setenv("GROUNDCREW_BUILDER__DEFAULT_INDEX", bench.public.url)
        monkeypatch.setenv("GROUNDCREW_BUILDER__ALLOW_HOSTS", f'["{bench.public.host}"]')
        monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setenv("GROUNDCREW_SECRETS_DIR", str(tmp_path / "secrets"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        make_wheel(bench.public.folder, "alpha", "1.0", requires=("beta",))
        make_wheel(bench.public.folder, "beta", "1.0")
        make_wheel(bench.public.folder, "gamma", "1.0")
        yield bench


@pytest.fixture
def repo(tmp_path: Path, bench: Bench) -> Repo:
    root = tmp_path / "environments"
    root.mkdir()
    return Repo(root, bench)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_a_pull_request_shows_packages_and_what_waits(
    repo: Repo, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """An added, a removed and a changed requirement: for which instances, wave and window."""
    make_wheel(bench.public.folder, "alpha", "2.0", requires=("delta",))
    make_wheel(bench.public.folder, "delta", "1.0")
    repo.git("checkout", "--quiet", "main")
    repo.environment("alpha<2")
    repo.commit("pin")
    repo.git("checkout", "--quiet", "-B", "change")
    repo.environment("alpha>=2", "gamma")
    repo.commit("newer alpha")
    assert repo.plan("-o", "json") == 0
    plan = document(capsys)
    assert [c["instance"] for c in plan["changes"]] == ["dev", "prod"]
    for change in plan["changes"]:
        assert change["action"] == "new build"
        assert change["packages"] == {
            "added": {"delta": "1.0", "gamma": "1.0"},
            "removed": {"beta": "1.0"},
            "changed": {"alpha": ["1.0", "2.0"]},
        }
    assert plan["changes"][0]["waits_on"] == []
    wave, window = plan["changes"][1]["waits_on"]
    assert wave == "wave 1: until dev is active and has soaked 10 min"
    assert window.startswith("window: opens at 2028-02-29 02:00 Europe/Berlin")
    assert repo.plan("-o", "markdown") == 0
    shown = capsys.readouterr().out
    for word in (
        "<!-- groundcrew plan -->",
        "2 instances would change",
        "| `dev` | `red` | `one` |",
        "| `alpha` | `1.0` | `2.0` |",
        "| `delta` |  | `1.0` |",
        "+2 -1 ~1",
        "until dev is active",
    ):
        assert word in shown, word
    assert shown.count("| `delta` |") == 1, "what two instances share is shown once"


def test_a_conflict_with_the_base_is_told_at_its_line(
    repo: Repo, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the base's version, the requirement and its line; the command ends with 1."""
    make_wheel(bench.public.folder, "acme-core", "3.0")
    repo.environment("alpha", "acme-core>=3")
    repo.commit("newer core")
    assert repo.plan("-o", "markdown") == 1
    shown = capsys.readouterr().out
    assert "### Conflicts" in shown
    assert "`teams/red/one.yaml:7" in shown
    assert "has acme-core 2.0" in shown
    assert "on `dev`, `prod`" in shown
    assert repo.plan() == 1
    assert "has acme-core 2.0" in capsys.readouterr().out


def test_only_what_the_pull_request_changes_is_shown(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Newer commits of main, mistakes of other people and comments are not part of it."""
    repo.write("README.md", "words\n")
    definition = repo.root / "teams/red/one.yaml"
    definition.write_text(f"# a comment\n{definition.read_text()}")
    repo.commit("only words")
    repo.git("checkout", "--quiet", "main")
    repo.environment("gamma")
    repo.write("teams/red/broken.yaml", "kind: Nonsense\n")
    repo.commit("something else")
    repo.git("checkout", "--quiet", "change")
    assert repo.plan("-o", "json") == 0
    plan = document(capsys)
    assert (plan["changes"], plan["findings"]) == ([], [])
    assert repo.plan("-o", "markdown") == 0
    assert "nothing would change" in capsys.readouterr().out


def test_a_mistake_that_it_brings_ends_with_1(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """The finding has its line, and the instances stay as they are."""
    repo.write("teams/red/one.yaml", "apiVersion: groundcrew/v1\nkind: Environment\nmetadata: 3\n")
    repo.commit("oops")
    assert repo.plan("-o", "json") == 1
    plan = document(capsys)
    assert {c["action"] for c in plan["changes"]} == {"kept as it is: its definition has a mistake"}
    assert plan["findings"][0]["place"]["file"] == "teams/red/one.yaml"
    assert repo.plan("-o", "markdown") == 1
    assert "### Mistakes in the definitions" in capsys.readouterr().out


def test_a_file_that_is_renamed_with_a_mistake_is_kept_as_it_is(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing goes back to the bare base while a mistake names a renamed file."""
    repo.git("mv", "teams/red/one.yaml", "teams/red/new.yaml")
    text = (repo.root / "teams/red/new.yaml").read_text()
    repo.write("teams/red/new.yaml", text.replace("spec:\n", "spec:\n  sspend: true\n", 1))
    repo.commit("rename, and oops")
    assert repo.plan("-o", "json") == 1
    assert {c["action"] for c in document(capsys)["changes"]} == {
        "kept as it is: its definition has a mistake"
    }


def test_deleting_most_of_it_says_that_it_will_be_held(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon's own rule predicts the prune guard."""
    shutil.rmtree(repo.root / "teams/red")
    (repo.root / "instances/prod.yaml").unlink()
    repo.commit("away with it")
    assert repo.plan("-o", "markdown") == 0
    shown = capsys.readouterr().out
    assert "groundcrew confirm-prune" in shown
    assert "back to the bare base" in shown
    assert "no longer managed" in shown
    assert "| `alpha` | `1.0` |  |" in shown


def test_without_runtimes_it_says_what_is_asked_for_and_what_is_missing(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows lines of the definition instead of packages, and ends with 3."""
    repo.environment("alpha", "gamma>=1")
    repo.commit("gamma")
    told = ["plan", "--base", "main", "--path", str(repo.root), "--advisories", "off"]
    assert main([*told, "-o", "markdown"]) == 3
    shown = capsys.readouterr().out
    assert "+ gamma&gt;=1" in shown
    assert "groundcrew runtimes" in shown


def test_an_in_repo_package_is_resolved_from_the_checkout(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its requirements are part of the difference; each side has its own source of it."""
    package = "teams/red/packages/acme-tools"
    write_package(repo.root / package, "acme-tools", "1.0", {"acme_tools": ""}, ("gamma",))
    repo.environment("alpha", "acme-tools @ ./packages/acme-tools")
    repo.commit("own tools")
    code = repo.plan("-o", "json")
    plan = document(capsys)
    assert code == 0, plan
    packages = plan["changes"][0]["packages"]
    assert packages["added"] == {"acme-tools": "1.0", "gamma": "1.0"}
    assert packages["removed"] == {}


def test_advisories_are_asked_by_name_but_never_for_private_names(
    repo: Repo, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """OSV only gets names of public packages; advisories new in the change are marked as new."""
    make_wheel(bench.public.folder, "acme-secret", "1.0")

    def osv(method: str, path: str, body: bytes) -> Said:
        assert (method, path) == ("POST", "/v1/querybatch")
        asked = json.loads(body)["queries"]
        results = [
            {"vulns": [{"id": "GHSA-test", "modified": "2024-01-01T00:00:00Z"}]}
            if q["package"] == {"name": "gamma", "ecosystem": "PyPI"} and q["version"] == "1.0"
            else {}
            for q in asked
        ]
        return Said(200, {"Content-Type": "application/json"}, json.dumps({"results": results}))

    service = Receiver(osv)
    try:
        repo.environment("alpha", "gamma", "acme-secret")
        repo.commit("more")
        assert repo.plan("--advisories", service.root, "-o", "markdown") == 0
        shown = capsys.readouterr().out
        assert "[GHSA-test](https://osv.dev/vulnerability/GHSA-test)" in shown
        assert "**new with this change**" in shown
        assert all(b"acme-secret" not in got.body for got in service.got)
        service.answer = lambda *_: Said(503)
        assert repo.plan("--advisories", service.root, "-o", "markdown") == 0
        assert "Advisories were not looked up" in capsys.readouterr().out
    finally:
        service.close()


def test_nothing_in_a_pull_request_becomes_markup_or_a_mention(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names and messages of the pull request are shown literally, without effect."""
    evil = "<img src=x> @everyone [click](https://evil.example) `code` | cell"
    repo.write("teams/red/evil.yaml", f'apiVersion: groundcrew/v1\nkind: "{evil}"\n')
    repo.environment("alpha", '"nosuch @ https://evil.example/@everyone|x"')
    repo.commit("evil")
    assert repo.plan("-o", "markdown") == 1
    shown = capsys.readouterr().out
    assert "&lt;img src=x&gt;" in shown
    for word in ("<img", "](https://evil", " @everyone"):
        assert word not in shown, word


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base", "nosuch"], "there is no revision nosuch"),
        (["--base", "--output=x"], "is not a revision"),
        (["--base", "main", "--runtimes", "/nosuch.json"], "groundcrew runtimes"),
        (["-o", "markdown"], "need --base"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_words(
    arguments: list[str], words: str, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 2, and says what to do."""
    assert main(["plan", "--path", str(repo.root), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_shallow_clone_says_that_history_is_missing(
    repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two commits have no common ancestor: the message names the CI's setting."""
    repo.git("checkout", "--quiet", "--orphan", "other")
    repo.commit("unrelated")
    assert main(["plan", "--path", str(repo.root), "--base", "main"]) == 2
    assert "fetch-depth: 0" in capsys.readouterr().err


def test_a_very_large_change_still_fits_into_a_comment(
    repo: Repo, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """With hundreds of instances the comment stays below GitHub's 65,536 characters."""
    names = [f"instance-with-a-rather-long-name-{n:03}" for n in range(300)]
    for name in names:
        repo.write(f"instances/{name}.yaml", INSTANCE.format(name=name, more=WINDOW))
        repo.environment("gamma", rollout=f"    - {{instances: [{name}]}}", name=f"env-{name}")
    repo.commit("many")
    code = repo.plan("-o", "markdown")
    shown = capsys.readouterr().out
    assert code == 3, "the bases of new instances are not known"
    assert len(shown) < 65_536
    assert "300 instances would change" in shown
