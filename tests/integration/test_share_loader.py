"""The loader on real interpreters: what it adds, for which build, and when it does nothing."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gitsource.fields import ENV_REFUSED, ENV_REFUSED_PREFIXES
from reconciler.airflow.proof import MARK, find, parse
from reconciler.builder.base.inspection import inspect_base
from reconciler.core.loaded import Loaded
from reconciler.share.share import BaseName, Share
from tests.fakes.base import VERSION, make_base
from tests.harness.loader import ENV, Bases, Site
from tests.harness.shares import DIGEST, INTERPRETERS, A, B, abi_of, point, publish

LOADER = Path(__file__).parents[2] / "reconciler" / "share" / "loader" / "sitecustomize.py"


def test_a_variable_that_cannot_be_set_stops_no_other(share: Share, tmp_path: Path) -> None:
    """Variables that would change Python or Airflow are skipped, as are impossible values."""
    site = Site(tmp_path, share, sys.executable)
    code = f"import os, json; print(json.dumps({{n: os.environ.get(n) for n in {list(ENV)!r}}}))"
    seen = json.loads(site.run(code))
    assert {name for name, value in seen.items() if value is not None} == {"ACME", "LAST"}


def test_the_loader_and_the_definitions_refuse_the_same_variables() -> None:
    """A variable that a definition may not set is never set by the loader either."""
    told: dict[str, object] = {}
    for node in ast.parse(LOADER.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            told |= {ast.unparse(name): ast.literal_eval(node.value) for name in node.targets}
    assert told["_REFUSED"] == ENV_REFUSED
    assert told["_REFUSED_PREFIXES"] == ENV_REFUSED_PREFIXES


HAS = "import importlib.util as u; print(u.find_spec('acme_mod') is not None)"
HAS_EXPRESSION = "importlib.util.find_spec('acme_mod') is not None"
PIN = "import os; print(os.environ.get('GROUNDCREW_BUILD'))"


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_the_loader_gives_the_build_and_the_base_wins(
    python: str, share: Share, tmp_path: Path
) -> None:
    """On every interpreter: packages, programs, jars and variables; the base's own come first."""
    site = Site(tmp_path, share, python)
    seen = json.loads(
        site.run(
            "import acme_mod, owned, os, json, sys; e = os.environ; print(json.dumps([acme_mod.X, "
            "owned.WHO, e['ACME'], e['CLASSPATH'], e['PATH'], e['GROUNDCREW_BUILD'], "
            "e.get('PYTHONHOME'), os.path.samefile(e['GROUNDCREW_PYTHON'], sys.executable)]))"
        )
    )
    assert seen[:3] == [1, "base", "eu"]
    assert seen[3].endswith("/files/x.jar")
    assert f"{DIGEST}/bin" in seen[4]
    assert seen[5:] == [A, None, True]


def test_the_loader_keeps_out_where_it_has_no_business(share: Share, tmp_path: Path) -> None:
    """Without Airflow, in another component, isolated, or pinned to none, nothing is loaded."""
    site = Site(tmp_path, share, sys.executable)
    assert site.run(HAS) == "True"
    assert site.run(HAS, component="api-server") == "False"
    assert site.run(HAS, "-I") == "False"
    assert site.run(HAS, GROUNDCREW_BUILD="none") == "False"
    (site.site / "apache_airflow-3.3.2.dist-info").rmdir()
    assert site.run(HAS) == "False"


def test_a_pin_wins_over_the_pointer(share: Share, tmp_path: Path) -> None:
    """A child of a running task keeps its build after a switch."""
    site = Site(tmp_path, share, sys.executable)
    point(share, None)
    assert site.run(HAS) == "False"
    assert site.run(HAS, GROUNDCREW_BUILD=A) == "True"


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_each_base_of_one_airflow_loads_its_own_build(
    python: str, share: Share, tmp_path: Path
) -> None:
    """After an installation the new base loads its build, processes of the old one theirs."""
    site = Bases(tmp_path, share, python)
    old = site.point(A)
    assert site.loaded() == A
    site.install("more", "1.0")
    assert site.loaded() == A, "until it has a build of its own"
    new = site.point(B)
    assert (old.key != new.key, old.listing != new.listing) == (True, True)
    assert site.loaded() == B
    shutil.rmtree(site.site / "more-1.0.dist-info")
    assert site.loaded() == A
    site.install("other", "1.0")
    assert site.loaded() == B, "the newest, of a base that the pointer does not know"


def test_an_environment_of_python_is_told_apart_as_it_was_inspected(
    share: Share, tmp_path: Path
) -> None:
    """The loader sees the same listing as the daemon's isolated inspection of a venv."""
    python = make_base(tmp_path / "base", {"more": "1.0"})
    abi, loader = abi_of(python), share.install_loader("dev")
    runtime = inspect_base(python)
    for key, build, listing in ((runtime.key, A, runtime.listing), ("other", B, "another")):
        publish(share, build, abi=abi, airflow=VERSION)
        share.point("dev", BaseName(key, abi, VERSION, listing), build, ["scheduler"])
    done = subprocess.run(
        [python, "-c", "import os; print(os.environ['GROUNDCREW_BUILD'])"],
        env={"PYTHONPATH": str(loader)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == A


def test_the_newest_entry_is_taken_where_none_says_which_base_it_is_for(
    share: Share, tmp_path: Path
) -> None:
    """From a pointer of an earlier release the newest build is taken, never an older one."""
    site = Bases(tmp_path, share, sys.executable)
    site.point(A, marked=False)
    site.install("more", "1.0")
    site.point(B, marked=False)
    assert site.loaded() == B
    shutil.rmtree(site.site / "more-1.0.dist-info")
    site.point(A, marked=False)
    assert site.loaded() == A


def test_a_base_that_went_back_to_bare_does_not_load_an_older_ones_build(
    share: Share, tmp_path: Path
) -> None:
    """The pointer still has a build for the base before; this one is bare all the same."""
    site = Bases(tmp_path, share, sys.executable)
    site.point(A)
    site.install("more", "1.0")
    runtime = site.point(None)
    assert site.loaded() == "none"
    shutil.rmtree(site.site / "more-1.0.dist-info")
    assert site.loaded() == A
    pointer = share.pointer("dev")
    assert pointer is not None
    assert runtime.key not in pointer.builds
    assert {named.build for named in pointer.builds.values()} == {A}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"builds": 3}', '{"builds": {"x": []}}'])
def test_a_pointer_that_is_none_never_stops_an_interpreter(
    text: str, share: Share, tmp_path: Path
) -> None:
    """Whatever is in the file, Python starts as if there were no Groundcrew."""
    site = Site(tmp_path, share, sys.executable)
    (share.instance_path("dev") / "pointer.json").write_text(text)
    assert site.run(HAS) == "False"
    assert site.run(PIN) == "none"


@pytest.mark.parametrize("text", [None, "{", "[]", '{"abi": "cp27"}', '{"paths": [3]}'])
def test_a_process_that_fell_back_pins_its_children_to_the_base(
    text: str | None, share: Share, tmp_path: Path
) -> None:
    """If the build becomes readable before the child starts, parent and child still agree."""
    site = Site(tmp_path, share, sys.executable)
    manifest = share.root / "builds" / A / "build.json"
    good = manifest.read_text()
    broken = manifest if text is not None else share.instance_path("dev") / "pointer.json"
    kept = broken.read_text()
    broken.write_text("{" if text is None else text)
    if text == '{"paths": [3]}':  # fails after the first path was appended
        document = json.loads(good)
        broken.write_text(json.dumps({**document, "paths": [*document["paths"], 3]}))
    child = (
        "import importlib.util, pathlib, subprocess, sys\n"
        f"has = {HAS_EXPRESSION!r}\n"
        "mine = eval(has)\n"
        f"pathlib.Path({str(broken)!r}).write_text({kept!r})\n"
        "subprocess.run([sys.executable, '-c', 'import importlib.util; print(%s)' % has])\n"
        "print(mine)"
    )
    assert site.run(child).split() == ["False", "False"]
    assert site.run(HAS) == "True"


COMMANDS = [
    (("airflow", "scheduler"), "scheduler"),
    (("/opt/bin/airflow", "celery", "worker", "-q", "x"), "worker"),
    (("airflow", "tasks", "run", "x"), ""),
    (("airflow", "db", "check"), ""),
    (("airflow.sdk.execution_time.execute_workload",), ""),
    ((), ""),
]


@pytest.mark.parametrize(("words", "component"), COMMANDS, ids=str)
def test_a_component_leaves_a_proof_and_nothing_else_does(
    words: tuple[str, ...], component: str, share: Share, tmp_path: Path
) -> None:
    """One line on stderr, and a file of the same; its children and tasks leave none."""
    site = Site(tmp_path, share, sys.executable)
    child = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', '', 'airflow', 'triggerer'])"
    )
    left = _proofs(site, tmp_path, child if component else "", *words)
    assert [proof.component for proof in left] == ([component] if component else [])
    for proof in left:
        loads = component == "scheduler"  # the only one that the pointer says
        assert (proof.build, proof.pinned, proof.local) == (A if loads else None, False, False)
        assert proof.said.startswith("'WITH_NUL' is not set" if loads else "")


def test_a_proof_says_what_went_wrong(share: Share, tmp_path: Path) -> None:
    """The build is gone, its document is broken, or somebody pinned another one."""
    site = Site(tmp_path, share, sys.executable)
    document = share.build_path(A) / "build.json"
    whole = document.read_text()
    document.write_text("{")
    (broken,) = _proofs(site, tmp_path, "", "airflow", "scheduler")
    assert broken.build is None
    assert broken.said.startswith("the bare base, because: JSONDecodeError")
    document.unlink()
    (gone,) = _proofs(site, tmp_path, "", "airflow", "scheduler")
    assert gone.said == f"build {A} is not on the share; going on with the bare base"
    document.write_text(whole.replace(abi_of(sys.executable), "cp27-other"))
    (other,) = _proofs(site, tmp_path, "", "airflow", "scheduler")
    assert "is not for cp3" in other.said
    (pinned,) = _proofs(site, tmp_path, "", "airflow", "scheduler", GROUNDCREW_BUILD="none")
    assert (pinned.build, pinned.pinned) == (None, True)


def test_proofs_of_ended_processes_go_and_others_folders_are_not_used(
    share: Share, tmp_path: Path
) -> None:
    """A folder that anybody may write to holds no proof; the line is there all the same."""
    site = Site(tmp_path, share, sys.executable)
    folder = tmp_path / "temp" / f"groundcrew-{os.getuid()}" / "proofs"
    _proofs(site, tmp_path, "", "airflow", "scheduler")
    (first,) = folder.iterdir()
    _proofs(site, tmp_path, "", "airflow", "scheduler")
    (second,) = folder.iterdir()
    assert first != second
    folder.parent.chmod(0o777)
    done = _started(site, tmp_path, "", "airflow", "scheduler")
    assert find(done.stderr, "x") is not None
    assert list(folder.iterdir()) == [second]


def test_on_kubernetes_the_log_is_enough(share: Share, tmp_path: Path) -> None:
    """The first process of a container counts whatever its name is; nothing is written to disk."""
    site = Site(tmp_path, share, sys.executable)
    done = _started(site, tmp_path, "", "airflow", "scheduler", KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert find(done.stderr, "x") is not None
    assert not (tmp_path / "temp").exists()


def _started(
    site: Site, tmp_path: Path, code: str, *words: str, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [site.python, "-c", code, *words],
        env={
            "PATH": os.defpath,
            "PYTHONPATH": f"{site.loader}:{site.site}",
            "TMPDIR": str(tmp_path / "temp"),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def _proofs(site: Site, tmp_path: Path, code: str, *words: str, **env: str) -> list[Loaded]:
    """Return the proofs on stderr; the files must have the same."""
    done = _started(site, tmp_path, code, *words, **env)
    lines = [line for line in done.stderr.splitlines() if MARK in line]
    folder = tmp_path / "temp" / f"groundcrew-{os.getuid()}" / "proofs"
    files = [path.read_text() for path in folder.iterdir()] if folder.is_dir() else []
    assert [line.partition(MARK)[2] for line in lines] == files
    return [proof for line in files if (proof := parse(line, "x")) is not None]


def test_a_shadowed_sitecustomize_still_runs(share: Share, tmp_path: Path) -> None:
    """Another sitecustomize further down the path runs after the loader."""
    site = Site(tmp_path, share, sys.executable)
    (site.site / "sitecustomize.py").write_text("import os; os.environ['SHADOWED'] = 'ran'\n")
    assert site.run("import os; print(os.environ.get('SHADOWED'))") == "ran"
