"""`groundcrew build`, `export` and `venv` in a checkout, with real uv and indexes and no daemon."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from reconciler.api.documents import runtimes_document
from reconciler.cli import main
from reconciler.core.model import InstanceRecord, Records
from tests.fakes.base import write_package
from tests.harness.builder import Bench
from tests.harness.wheels import make_wheel

INSTANCE = """\
apiVersion: groundcrew/v1
kind: Instance
metadata: {name: dev}
spec:
  team: red
  kubernetes: {namespace: red, release: airflow}
  api: {url: "http://127.0.0.1:8080"}
"""
ENVIRONMENT = """\
apiVersion: groundcrew/v1
kind: Environment
metadata: {name: one}
spec:
  requirements:
    - alpha>=1
    - acme-tools @ ./packages/acme-tools
  rollout:
    - {instances: [dev]}
"""


class Checkout:
    """A checkout whose environment has a package from an index and one of its own."""

    def __init__(self, root: Path, bench: Bench) -> None:
        self.root = root
        self.bench = bench
        self.write("instances/dev.yaml", INSTANCE)
        self.write("teams/red/one.yaml", ENVIRONMENT)
        self.package("answer = 42\n")
        self.runtimes = root.parent / "runtimes.json"
        instance = InstanceRecord("dev", "red", bench.instance(), bench.runtime)
        self.runtimes.write_text(
            json.dumps(runtimes_document(Records(instances={"dev": instance})))
        )

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def package(self, text: str) -> None:
        folder = self.root / "teams" / "red" / "packages" / "acme-tools"
        write_package(folder, "acme-tools", "1.0", {"acme_tools/__init__.py": text})

    def run(self, command: str, *arguments: str, base: bool = True) -> int:
        python = ("--python", self.bench.python) if base else ()
        return main([command, *arguments, "--path", str(self.root), *python])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench"), {"acme-core": "2.0"}) as bench:
        make_wheel(bench.public.folder, "alpha", "1.5", requires=("beta",))
        make_wheel(bench.public.folder, "beta", "1.0")
        yield bench


@pytest.fixture
def checkout(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    for name in [n for n in os.environ if n.startswith("GROUNDCREW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GROUNDCREW_BUILDER__DEFAULT_INDEX", bench.public.url)
    monkeypatch.setenv("GROUNDCREW_BUILDER__CACHE_DIR", str(bench.state / "cache"))
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "environments"
    root.mkdir()
    return Checkout(root, bench)


def built(checkout: Checkout, capsys: pytest.CaptureFixture[str], code: int) -> dict[str, Any]:
    """Return the only outcome of `build -o json`, which has to end with a code."""
    assert checkout.run("build", "-o", "json") == code
    (outcome,) = json.loads(capsys.readouterr().out)
    return dict(outcome)


def test_what_works_is_built_and_leaves_nothing(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same packages as the daemon would activate; no share and no records are made."""
    outcome = built(checkout, capsys, 0)
    assert {p["name"]: p["version"] for p in outcome["packages"]} == {
        "acme-tools": "1.0",
        "alpha": "1.5",
        "beta": "1.0",
    }
    assert outcome["instances"] == ["dev"]
    assert outcome["runtime"] == checkout.bench.runtime.key
    assert checkout.run("build", "one") == 0
    assert "ok" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["environments", "runtimes.json"]


def test_a_package_that_does_not_import_is_found_before_the_push(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    """Uncommitted, and without a rollout too; --log prints what the build said."""
    checkout.package("import missing_module\n")
    checkout.write("teams/red/one.yaml", ENVIRONMENT.partition("  rollout:")[0])
    assert built(checkout, capsys, 1)["problem"]["reason"] == "VerificationFailed"
    checkout.write("teams/red/one.yaml", ENVIRONMENT)
    assert built(checkout, capsys, 1)["problem"]["reason"] == "VerificationFailed"
    assert checkout.run("build") == 1
    shown = capsys.readouterr()
    assert "acme_tools/__init__.py:1: [VerificationFailed] acme_tools does not import" in shown.out
    assert shown.err == ""
    assert checkout.run("build", "--log") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_conflict_with_the_base_is_told_at_its_line(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the base's version and the requirement."""
    checkout.write("teams/red/one.yaml", ENVIRONMENT.replace("alpha>=1", "acme-core>=3"))
    make_wheel(checkout.bench.public.folder, "acme-core", "3.0")
    problem = built(checkout, capsys, 1)["problem"]
    assert problem["place"].startswith("teams/red/one.yaml:6")
    assert "has acme-core 2.0" in problem["message"]


def test_a_base_is_copied_from_the_index(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --runtimes; a package that the index lacks, or another platform, ends with 3."""
    command = ("build", "--runtimes", str(checkout.runtimes))
    assert checkout.run(*command, base=False) == 3
    assert "its base cannot be copied to this machine: uv pip failed" in capsys.readouterr().out
    for one in checkout.bench.runtime.base:
        files = {"airflow/__init__.py": ""} if one.name.startswith("apache-airflow") else {}
        make_wheel(checkout.bench.public.folder, one.name, one.version, files)
    document = json.loads(checkout.runtimes.read_text())
    (runtime,) = document["runtimes"].values()
    runtime["platform"] = "linux_sparc"
    other = checkout.runtimes.with_name("other.json")
    other.write_text(json.dumps(document))
    assert checkout.run("build", "--runtimes", str(other), base=False) == 3
    assert "its base is for linux_sparc, and this machine is" in capsys.readouterr().out
    assert checkout.run("export", "one", *command[1:], base=False) == 0
    assert "acme-core==2.0" in capsys.readouterr().out.splitlines()


def test_a_lock_for_other_tools(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    """Each format can be read by the tool that it is for, and has the base where it should."""
    assert checkout.run("export", "one") == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if not x.startswith("#")]
    assert "./teams/red/packages/acme-tools" in lines
    pins = [str(Requirement(line)) for line in lines if not line.startswith("./")]
    assert {"alpha==1.5", "beta==1.0", "acme-core==2.0"} <= set(pins)
    assert checkout.run("export", "one", "-o", "uv") == 0
    project = tomllib.loads(capsys.readouterr().out)
    assert {"acme-tools", "alpha==1.5"} <= set(project["project"]["dependencies"])
    assert project["tool"]["uv"]["sources"]["acme-tools"]["path"] == "teams/red/packages/acme-tools"
    assert checkout.run("export", "one", "-o", "pylock") == 0
    packages = tomllib.loads(capsys.readouterr().out)["packages"]
    assert sorted(one["name"] for one in packages) == ["acme-tools", "alpha", "beta"]


def test_a_virtual_environment_has_base_and_build(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its interpreter imports both; a directory that exists is refused."""
    for one in checkout.bench.runtime.base:
        make_wheel(checkout.bench.public.folder, one.name, one.version)
    there = tmp_path / "venv"
    assert checkout.run("venv", str(there), "one") == 0
    assert f"{there} has" in capsys.readouterr().out
    code = "import acme_tools, alpha, acme_core; print(acme_tools.answer, alpha.__version__)"
    done = subprocess.run(
        [there / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["42", "1.5"]
    assert checkout.run("venv", str(there), "one") == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("build", "onne"), "did you mean environment/one?"),
        (("build", "--python", "/no/python"), "is not an interpreter"),
        (
            ("export", "one", "--instance", "prod"),
            "environment one has no instance prod; it has dev",
        ),
    ],
)
def test_misuse_says_what_to_do(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], message: str
) -> None:
    """Each ends with 2."""
    assert checkout.run(*command) == 2
    assert message in capsys.readouterr().err


def test_without_a_base_it_says_how_to_give_one(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither --python nor --runtimes, and no Airflow of an instance on this machine."""
    assert checkout.run("build", base=False) == 2
    assert "give the interpreter of an Airflow with --python" in capsys.readouterr().err


def test_a_mistake_in_the_definitions_comes_first(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    """All findings are printed, and nothing is built."""
    checkout.write("teams/red/one.yaml", ENVIRONMENT.replace("rollout:", "rolout:"))
    assert checkout.run("build") == 1
    assert "teams/red/one.yaml:8" in capsys.readouterr().err
