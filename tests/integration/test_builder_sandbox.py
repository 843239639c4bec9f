"""The limits on a team's code while it is built and verified."""

from __future__ import annotations

import ast
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.builder.verify.report import Report
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.settings import BuilderSettings, Settings
from tests.harness.builder import PASSWORD, Bench, files
from tests.harness.wheels import make_wheel

PROBES = """
import os, pathlib, socket, urllib.request

def probe(action):
    try:
        return repr(action())[:300]
    except BaseException as error:
        return type(error).__name__

def unix(path):
    with socket.socket(socket.AF_UNIX) as it:
        it.connect(path)

places = {places!r}
found = {{
    "outside": probe(lambda: pathlib.Path(places["outside"]).write_text("x")),
    "share": probe(lambda: (pathlib.Path(places["share"]) / "evil").write_text("x")),
    "base": probe(lambda: (pathlib.Path(places["base"]) / "evil").write_text("x")),
    "secret": probe(lambda: pathlib.Path(places["secret"]).read_text()),
    "state": probe(lambda: pathlib.Path(places["state"]).read_text()),
    "network": probe(lambda: socket.create_connection(("127.0.0.1", places["port"]), 5)),
    "socket": probe(lambda: unix(places["socket"])),
    "variables": sorted(os.environ),
    "daemon": probe(lambda: [
        p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if p.read_bytes() == places["us"]
    ]),
}}
"""
STOPPED = {
    "outside": "OSError",
    "share": "OSError",
    "base": "OSError",
    "secret": "FileNotFoundError",
    "state": "FileNotFoundError",
    "network": "ConnectionRefusedError",
    "socket": "FileNotFoundError",
    "daemon": "[]",
}


@pytest.fixture
def listening() -> Iterator[str]:
    """Yield the socket of a service of the machine, like that of a database or container engine."""
    path = Path(f"/run/groundcrew-test-{time.monotonic_ns()}.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(path))
        except OSError:
            pytest.skip("/run is not ours to write")
        listener.listen()
        yield str(path)
        path.unlink()


def probes(bench: Bench, listening: str) -> str:
    """Return code that tries forbidden things; its results are in `found`."""
    (bench.state / "groundcrew.db").write_text("records of every team")
    places = {
        "outside": str(bench.root / "evil"),
        "share": str(bench.share.root),
        "base": str(Path(bench.python).parent),
        "secret": str(bench.secrets / "red" / "corp" / "password"),
        "state": str(bench.state / "groundcrew.db"),
        "port": int(bench.public.url.split(":")[2].split("/")[0]),
        "socket": listening,
        "us": Path("/proc/self/cmdline").read_bytes(),
    }
    return PROBES.format(places=places)


def stopped(found: dict[str, object]) -> dict[str, object]:
    """Return the findings that have one correct value."""
    return {key: found[key] for key in STOPPED}


def test_a_build_script_is_stopped_at_every_border(
    bench: Bench, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes nothing outside, reads no secret or state, and reaches no network or service."""
    monkeypatch.setenv("GROUNDCREW_DATABASE", "postgresql://user:word@host/records")
    code = probes(bench, listening) + (
        "pathlib.Path('acme_own/seen.py').write_text(f'found = {found!r}\\n')\n"
    )
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
    built = bench.build(bench.recipe(own))
    outcomes = ast.literal_eval(bench.paths(built)["acme_own/seen.py"].removeprefix("found = "))
    assert stopped(outcomes) == {**STOPPED, "share": "FileNotFoundError"}  # it is not even there
    assert not [name for name in outcomes["variables"] if "GROUNDCREW" in name]
    assert not [p for p in files(bench.root) if p.name == "evil"]


READ = """
import json, pathlib, socket, sys
found = {}
for place in sys.argv[1:]:
    try:
        if place.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(place)
        elif pathlib.Path(place).is_dir():
            (pathlib.Path(place) / "evil").write_text("x")
        found[place] = pathlib.Path(place).read_text()
    except OSError as error:
        found[place] = ""
print(json.dumps(found))
"""


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """Yield a folder that is in no temporary folder and in no home."""
    folder = Path(f"/opt/groundcrew-test-{time.monotonic_ns()}")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("/opt is not ours to write")
    yield folder
    shutil.rmtree(folder)


def test_what_is_the_daemons_and_what_is_peoples_is_hidden(
    bench: Bench, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings, secrets, records, homes, keys and temporary folders, with all sockets in them."""
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    monkeypatch.setenv("KUBECONFIG", str(elsewhere / "kube.yaml"))
    monkeypatch.setenv("GROUNDCREW_CONFIG", str(elsewhere / "groundcrew.toml"))
    settings = Settings(
        state_dir=elsewhere / "state",
        secrets_dir=elsewhere / "secrets",
        database=f"sqlite:///{elsewhere}/records.db",
    )
    places = [
        "kube.yaml",
        "records.db",
        "state/groundcrew.db",
        "secrets/red/corp/token",
        "home/.ssh/id_ed25519",
        "home/notes",
    ]
    kept = [elsewhere / p for p in places] + [bench.root / "notes"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a secret")
    (elsewhere / "groundcrew.toml").write_text("[builder]\nsandbox = 'require'\n")
    (elsewhere / "shown").write_text("no secret")
    (elsewhere / "unasked").write_text("nobody named it")
    work = elsewhere / "state/cache/work/x"
    work.mkdir(parents=True)
    (work / "own").write_text("its own")
    builder = settings.builder.model_copy(update={"readable": (elsewhere / "shown",)})
    sandbox = Sandbox(builder, settings.cache_dir, settings.hidden)
    hidden = [
        *map(str, kept),
        str(elsewhere / "unasked"),
        str(elsewhere / "groundcrew.toml"),
        "/home",
        "/root",
        "/tmp",
        "/var/tmp",
    ]
    with socket.socket(socket.AF_UNIX) as listener:
        there = tempfile.mkdtemp()
        listener.bind(f"{there}/it.sock")
        listener.listen()
        hidden.append(f"{there}/it.sock")
        for network in (False, True):
            ended = sandbox.run(
                bench.job(),
                [bench.python, "-c", READ, *hidden, str(work / "own"), str(elsewhere / "shown")],
                work=work,
                timeout=60,
                network=network,
            )
            contents = json.loads(ended.output)
            assert contents.pop(str(work / "own")) == "its own"
            assert contents.pop(str(elsewhere / "shown")) == "no secret"
            assert contents == dict.fromkeys(hidden, "")


def test_an_interpreter_in_a_hidden_folder_is_there_without_the_folder(
    bench: Bench, tmp_path: Path
) -> None:
    """A venv behind a link, its base and what a .pth file names are visible; nothing else is."""
    venv = tmp_path / "people" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    checkout = tmp_path / "people" / "checkout"
    checkout.mkdir()
    (checkout / "acme_checkout.py").write_text("word = 'from the checkout'")
    (checkout / "groundcrew.toml").write_text("database = 'secret'")
    (tmp_path / "people" / "notes").write_text("a secret")
    (folder,) = venv.glob("lib/python*/site-packages")
    (folder / "acme.pth").write_text(str(checkout))
    link = tmp_path / "current"
    link.symlink_to(venv)
    code = (
        "import acme_checkout, json, pathlib, sys\n"
        "there = sorted(p.name for p in pathlib.Path(sys.argv[1]).glob('*'))\n"
        "try:\n    text = pathlib.Path(sys.argv[2]).read_text()\n"
        "except OSError:\n    text = ''\n"
        "print(json.dumps([acme_checkout.word, sys.prefix, there, text]))\n"
    )
    sandbox = Sandbox(BuilderSettings(), tmp_path / "cache", [checkout / "groundcrew.toml"])
    work = tmp_path / "work"
    work.mkdir()
    command = [
        str(link / "bin" / "python"),
        "-c",
        code,
        *map(str, (venv.parent, checkout / "groundcrew.toml")),
    ]
    ended = sandbox.run(bench.job(), command, work=work, timeout=60)
    there = ["checkout", "venv"]
    assert json.loads(ended.output) == ["from the checkout", str(link), there, ""]


def test_a_package_is_stopped_at_every_border_when_it_is_verified(
    bench: Bench, listening: str
) -> None:
    """It is imported in the same sandbox in which it was built."""
    code = probes(bench, listening) + (
        "import json\n"
        "if 'GROUNDCREW_BUILD' in os.environ:\n"
        "    del found['variables']  # a message keeps its first words only\n"
        "    raise RuntimeError(json.dumps(found))\n"
    )
    own = bench.package("acme-own", {"acme_own/__init__.py": code})
    recipe = bench.recipe(own)
    built = bench.build(recipe)
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(bench.job(), recipe, bench.runtime, bench.instance(), built.build_id)
    outcomes = json.loads(caught.value.message.partition("RuntimeError: ")[2])
    assert stopped(outcomes) == STOPPED


@pytest.mark.parametrize(
    "folder",
    ["SECRETS/blue", "SECRETS", "LINK", "STATE/cache", "/", "/proc/self", "/tmp", "/run"],
)
def test_an_airflow_cfg_opens_no_hidden_place(bench: Bench, folder: str) -> None:
    """Whatever its dags_folder is: no code of the build or the DAGs runs with access to it."""
    (bench.secrets / "blue").mkdir()
    (bench.secrets / "blue" / "dag.py").write_text("raise RuntimeError(open(__file__).read())\n")
    instance = bench.instance()
    link = bench.root / "airflow" / "link"
    link.symlink_to(bench.secrets / "blue")
    placeholders = {"SECRETS": bench.secrets, "STATE": bench.state, "LINK": link}
    for word, path in placeholders.items():
        folder = folder.replace(word, str(path))
    config = bench.root / "airflow" / "airflow.cfg"
    config.write_text(f"[core]\ndags_folder = {folder}\n")
    make_wheel(bench.public.folder, "alpha")
    recipe = bench.recipe("alpha")
    built = bench.build(recipe)
    with pytest.raises(Stalled) as caught:
        bench.builder.verify(bench.job(), recipe, bench.runtime, instance, built.build_id)
    assert (caught.value.reason, caught.value.place) == (Reason.NOT_ALLOWED, instance.place)
    assert "dags_folder" in caught.value.message
    config.write_text(f"[core]\ndags_folder = {bench.root / 'airflow' / 'dags'}\n")
    bench.builder.verify(bench.job(), recipe, bench.runtime, instance, built.build_id)


def test_what_a_build_script_leaves_behind_leads_nowhere(bench: Bench) -> None:
    """Links to other files, in place of files in its folder, are neither written to nor read."""
    victim = bench.root / "victim"
    victim.write_text("untouched")
    forged = bench.root / "report.json"
    forged.write_text(json.dumps({key: [] for key in sorted(Report.model_fields)}))
    code = f"""
import contextlib, os, pathlib
names = ["requirements.in", "constraints.txt", "uv.toml", "pylock.toml", "request.json", "tmp",
         "verify_worker.py", "report.json", "home", "imports-home", "base-home", "resolve", "index"]
for folder in pathlib.Path.cwd(), pathlib.Path(os.environ["HOME"]), *pathlib.Path.cwd().parents:
    for name in names:
        with contextlib.suppress(OSError):
            (folder / name).symlink_to({str(victim)!r})
"""
    make_wheel(bench.public.folder, "alpha")
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
    recipe = bench.recipe(own, "alpha")
    built = bench.build(recipe)
    bench.builder.verify(bench.job(), recipe, bench.runtime, bench.instance(), built.build_id)
    assert victim.read_text() == "untouched"
    report = (
        "import os, pathlib\n"
        "for p in pathlib.Path(os.environ['AIRFLOW_HOME']).glob('re*.json'):\n    p.unlink()\n"
        f"pathlib.Path(os.environ['AIRFLOW_HOME'], 'report.json').symlink_to({str(forged)!r})\n"
        "os._exit(0)\n"
    )
    liar = bench.recipe(bench.package("acme-liar", {"acme_liar/__init__.py": report}))
    built = bench.build(liar)
    with pytest.raises(Stalled, match="importing the build's modules ended"):
        bench.builder.verify(bench.job(), liar, bench.runtime, bench.instance(), built.build_id)


def test_one_teams_build_is_not_what_another_team_gets(bench: Bench) -> None:
    """The same tree is built for each team separately: its cache only affects that team."""
    caches = bench.state / "cache" / "uv-teams"
    leave = f"import pathlib\npathlib.Path({str(caches / 'blue' / 'mark')!r}).write_text('')\n"
    left = bench.package("acme-left", {"acme_left/__init__.py": ""}, preamble=leave)
    bench.lock(bench.recipe(left), bench.job("blue"))
    code = (
        f"import pathlib\nmarks = list(pathlib.Path({str(caches)!r}).rglob('mark'))\n"
        "pathlib.Path('acme_own/seen.py').write_text('evil' if marks else 'good')\n"
    )
    recipe = bench.recipe(bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code))
    builds, logs = [], []
    for team in ("red", "blue", "red"):
        job = bench.job(team)
        built = bench.build(recipe, job)
        builds.append((built.build_id, bench.paths(built)["acme_own/seen.py"]))
        logs.append("building teams/red" in job.log.read_text())
    assert [code for _, code in builds] == ["good", "evil", "good"]
    assert builds[0] == builds[2] != builds[1]
    assert logs == [True, True, False]


# ------------------------------------------------------------------------------ without bubblewrap


def test_without_a_sandbox_everything_else_still_holds(tmp_path: Path) -> None:
    """`sandbox: off` builds with private indexes and keeps their credentials secret."""
    with Bench(tmp_path, sandbox="off") as bench:
        make_wheel(bench.private.folder, "acme-tools")
        own = bench.package("acme-own", {"acme_own/__init__.py": ""}, ("acme-tools",))
        job = bench.job()
        built = bench.build(bench.recipe(own, indexes=(bench.corp("acme-tools"),)), job)
        assert built.packages == (("acme-own", "1.0"), ("acme-tools", "1.0"))
        assert PASSWORD not in job.log.read_text()
