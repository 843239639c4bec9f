"""Inputs that people bring, through `run --once` on real Airflows, to the state that must come out.

All of them are resolved, built and verified against the bases of Airflow 2.11 and 3.x. Those that
get ready are then activated, all of them together, on a live Airflow of each.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.demo.airflow import Bed
from tests.fakes.addresses import served
from tests.harness import inputs
from tests.harness.inputs import Input
from tests.harness.wheels import IndexServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

CACHE = Path(os.environ.get("GROUNDCREW_DEMO_CACHE") or Path(__file__).parents[2] / ".cache")
DAG = """
from datetime import datetime
from airflow import DAG
import acme_cli, acme_extra.io, acme_fast, acme_io, acme_jobs, acme_metrics, acme_scm

assert acme_fast.TABLE == "table"
with DAG("uses_all", start_date=datetime(2024, 1, 1), schedule=None):
    pass
"""


@dataclass(frozen=True, slots=True)
class Packages:
    """The small index, and the address of everything else that is served."""

    index: str
    files: str


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packages]:
    """Serve the packages and files of all inputs."""
    folder = tmp_path_factory.mktemp("index")
    inputs.fill(folder)
    with IndexServer(folder) as index, served() as web:
        wheels = [f"acme_metrics-{version}-py3-none-any.whl" for version in ("4.1", "4.2")]
        rows = [f'<a href="http://{index.host}/packages/{name}">{name}</a>' for name in wheels]
        rows[1] = rows[1].replace("<a ", '<a data-requires-python=">=3.9,<4" ')
        web.pages["/odd/simple/acme-metrics/"] = f"<!-- <a> -->{''.join(rows)}"
        web.pages["/acme-tool"] = inputs.TOOL.decode()
        jar = "/maven/com/acme/driver/2.1/driver-2.1-shaded.jar"
        web.pages[jar] = inputs.JAR.decode()
        yield Packages(index.url, web.url)


class Site:
    """Environments repo, share and settings below `root`, for one interpreter."""

    def __init__(self, root: Path, packages: Packages, python: str) -> None:
        self.root, self.packages, self.python = root, packages, python
        self.repo = root / "environments"
        self.repo.mkdir(parents=True)
        (root / "secrets").mkdir(mode=0o700, exist_ok=True)
        (root / "groundcrew.toml").write_text(
            f'state_dir = "{root / "state"}"\nshare = "{root / "share"}"\n'
            f'secrets_dir = "{root / "secrets"}"\n[git]\nurl = "{self.repo}"\n'
            f'[local]\nallow = ["{python}", "/bin/false", "{Path(sys.executable).parent}/*"]\n'
            f'[builder]\nallow_hosts = ["127.0.0.1:*"]\n'
            f'maven_repository = "{packages.files}/maven"\n'
            f"[http]\nenabled = false\n[activation]\nwatch = 0\n"
        )

    def write(self, path: str, content: str | bytes) -> None:
        """Write a file of the environments repo."""
        file = self.repo / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def add(self, one: Input) -> None:
        """Write an input, with an instance on which nothing is activated."""
        self.write(f"teams/{one.name}/{one.name}.yaml", one.content(self.packages.index))
        for path, content in one.files.items():
            self.write(f"teams/{one.name}/{path}", content)
        (home := self.root / "homes" / one.name / "dags").mkdir(parents=True)
        spec = {
            "team": one.name,
            "suspend": True,
            "local": {
                "python": self.python,
                "airflowHome": str(home.parent),
                "components": {"scheduler": {"restart": ["/bin/false"]}},
            },
            "api": {"url": "http://127.0.0.1:9"},
        }
        head = {"apiVersion": "groundcrew/v1", "kind": "Instance"}
        document = {**head, "metadata": {"name": f"{one.name}-dev"}, "spec": spec}
        self.write(f"instances/{one.name}-dev.yaml", yaml.safe_dump(document))

    def commit(self) -> None:
        """Commit everything."""
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "inputs"]):
            subprocess.run(["git", *identity, *command], cwd=self.repo, check=True, timeout=60)

    def run(self, *command: str, timeout: float = 1800) -> tuple[int, str, str]:
        """Run a command of `groundcrew`; return its exit code, output and log."""
        done = subprocess.run(
            [sys.executable, "-m", "reconciler.cli", *command],
            env={**os.environ, "GROUNDCREW_CONFIG": str(self.root / "groundcrew.toml")},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def status(self) -> dict[str, Any]:
        """Return the document of `status`."""
        code, output, log = self.run("status", "-o", "json")
        assert code == 0, log
        document: dict[str, Any] = json.loads(output)
        return document


def check(one: Input, site: Site, status: dict[str, Any]) -> None:
    """Hold what became of an input against what must become of it."""
    findings = [f for f in status["findings"] if f["file"].startswith(f"teams/{one.name}/")]
    shown = {e["name"]: e for e in status["environments"]}.get(one.name)
    if not one.phase:
        assert one.reason in {finding["reason"] for finding in findings}, findings
        message = "\n".join(finding["message"] for finding in findings)
        assert all(finding["line"] for finding in findings if finding["reason"] != "InvalidYaml")
    else:
        assert findings == []
        assert shown is not None
        (build,) = shown["builds"]
        assert build["phase"] == one.phase, build
        assert (build["problem"] or {}).get("reason", "") == one.reason, build
        installed = {(row["name"], row["version"]) for row in build["packages"]}
        assert installed.issuperset(one.installs), build
        message = (build["problem"] or {}).get("message", "")
        if not message:
            message = (site.root / "state" / "logs" / f"{build['key']}.log").read_text()
    for part in set(one.says):
        assert message.count(part) >= one.says.count(part), (part, message)


@pytest.mark.parametrize("airflow", ["3", "2.11"])
def test_every_input_comes_out_as_it_must(
    airflow: str, tmp_path: Path, packages: Packages, subtests: pytest.Subtests
) -> None:
    """One daemon run makes all of them, each for a team of its own."""
    bed = Bed(
        tmp_path / "airflow",
        airflow,
        tmp_path / "share",
        "none",
        team="none",
        secrets=tmp_path / "secrets",
    )
    bed.install(CACHE)
    site = Site(tmp_path / "site", packages, bed.python)
    everything = inputs.inputs(packages.files)
    for one in everything:
        site.add(one)
    site.commit()
    code, _, log = site.run("run", "--once")
    assert code == 1, "some of them must fail"
    assert "Traceback" not in log
    status = site.status()
    for one in everything:
        with subtests.test(one.name):
            check(one, site, status)
    (tool,) = (site.root / "share").glob("store/**/bin/acme-tool")
    assert os.access(tool, os.X_OK), "a program needs no mode to be executable"


@pytest.mark.parametrize("airflow", ["3", "2.11"])
def test_what_gets_ready_runs_on_a_live_airflow(
    airflow: str, tmp_path: Path, packages: Packages
) -> None:
    """All of it in one environment, imported by a DAG of the instance."""
    bed = Bed(
        tmp_path / "airflow",
        airflow,
        tmp_path / "site" / "share",
        "live-dev",
        team="live",
        secrets=tmp_path / "site" / "secrets",
    )
    bed.install(CACHE)
    site = Site(tmp_path / "site", packages, bed.python)
    ready = [one for one in inputs.inputs(packages.files) if one.phase == "Ready"]
    whole: dict[str, Any] = {"requirements": [], "files": [], "sourceBuilds": [], "indexes": []}
    for one in ready:
        for key, rows in whole.items():
            rows += [row for row in one.spec.get(key, []) if row not in rows]
    files = {path: content for one in ready for path, content in one.files.items()}
    live = Input("live", {key: rows for key, rows in whole.items() if rows}, files)
    site.add(live)
    try:
        bed.configure()
        bed._environment.pop("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT")  # it would win over the file
        bed.supervise()
        limit_imports(bed, 300)
        bed.write_dag("hello", DAG.partition("import acme_cli")[0] + "with DAG('hello'): pass\n")
        bed.start()
        site.write("instances/live-dev.yaml", bed.instance_yaml("live-dev", "live"))
        site.commit()
        code, _, log = site.run("run", "--once")
        assert code == 0, log
        (instance,) = site.status()["instances"]
        assert (instance["phase"], instance["sync"], instance["health"]) == (
            "Active",
            "Synced",
            "Healthy",
        )
        bed.write_dag("uses_all", DAG)
        bed.wait_for_dag("uses_all")
        check_refusals_before_live(site, bed)
    finally:
        bed.stop()


def check_refusals_before_live(site: Site, bed: Bed) -> None:
    """Hold that a renamed and a slow module of the live environment fail before the switch."""
    module = "teams/live/packages/extra/src/acme_extra/io.py"
    text = (site.repo / module).read_text()
    pointer = site.root / "share" / "instances" / "live-dev" / "pointer.json"
    before = pointer.read_bytes()
    (site.repo / module).rename(site.repo / module.replace("io.py", "files.py"))
    problem = refused_live(site)
    assert "DAG uses_all.py parses with the active build" in problem["message"]
    assert "acme_extra.io" in problem["message"]
    site.write(module, f"import time\ntime.sleep(11)\n{text}")
    limit_imports(bed, 10)
    problem = refused_live(site)
    assert problem["place"] == module
    assert "the instance allows 10 s (dagbag_import_timeout)" in problem["message"]
    assert pointer.read_bytes() == before
    kinds = [event["kind"] for event in json.loads(site.run("history", "-o", "json")[1])]
    assert kinds.count("ActivationStarted") == 1, "nothing was restarted again"


def limit_imports(bed: Bed, seconds: int) -> None:
    """Set how long a DAG file may take to import, in airflow.cfg."""
    config = bed.home / "airflow.cfg"
    limit = f"dagbag_import_timeout = {seconds}"
    text = config.read_text() if config.exists() else f"[core]\n{limit}\n"
    config.write_text(re.sub(r"(?m)^dagbag_import_timeout = .*", limit, text))
    assert limit in config.read_text()


def refused_live(site: Site) -> dict[str, Any]:
    """Commit; return the problem of the build, which leaves the instance as it is."""
    site.commit()
    code, _, log = site.run("run", "--once")
    assert code == 1, log
    (instance,) = site.status()["instances"]
    assert (instance["phase"], instance["health"]) == ("Active", "Healthy")
    (environment,) = site.status()["environments"]
    (problem,) = [build["problem"] for build in environment["builds"] if build["problem"]]
    assert problem["reason"] == "VerificationFailed"
    return dict(problem)
