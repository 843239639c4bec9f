"""Network access of a team's code while it is built: files of its indexes and nothing else."""

from __future__ import annotations

import json

import pytest

from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.core.definitions import Index, Place
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.settings import BuilderSettings
from tests.fakes.addresses import served
from tests.harness.builder import FILE, Bench
from tests.harness.wheels import make_wheel

FIND_INDEX = """\
import json, pathlib, urllib.error, urllib.request
words = [
    w.decode() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")
    for w in p.read_bytes().split(b"\\0")
]
index = next(w for w in words if w.endswith("/simple/") and "8400" in w)"""


def test_a_proxys_password_is_for_what_has_the_network(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build script does not need a proxy; uv does."""
    proxy = "http://user:word@127.0.0.1:9/"
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    code = "import os, pathlib\npathlib.Path('acme_own/seen.py').write_text(repr(os.environ))\n"
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
    assert "127.0.0.1:9" not in bench.paths(bench.build(bench.recipe(own)))["acme_own/seen.py"]
    sandbox = Sandbox(BuilderSettings(), bench.state / "cache", [])
    work = bench.root / "work"
    work.mkdir()
    command = [bench.python, "-c", "import os; print(os.environ['https_proxy'])"]
    ended = sandbox.run(bench.job(), command, work=work, timeout=60, network=True)
    assert ended.output == "http://***@127.0.0.1:9/\n"


def test_the_index_in_the_sandbox_answers_for_its_files_only(bench: Bench) -> None:
    """A build script cannot use it to reach an address that no project's page names."""
    secret = make_wheel(bench.root / "elsewhere", "secret")
    (bench.public.folder / "unlisted.txt").write_text(secret.name)
    make_wheel(bench.public.folder, "alpha")
    code = f"""{FIND_INDEX}
import base64
def ask(path):
    try:
        with urllib.request.urlopen(index.removesuffix("simple/") + path, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
def file(url):
    mark = base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    return ask(f"file/alpha/{{mark}}/x.whl")
found = [ask("simple/alpha/"), file({bench.public.url!r} + "../unlisted.txt"),
         file("http://169.254.169.254/latest/meta-data/"), ask("../../etc/passwd")]
pathlib.Path("acme_own/seen.py").write_text(json.dumps(found))
"""
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
    built = bench.build(bench.recipe(own))
    assert json.loads(bench.paths(built)["acme_own/seen.py"]) == [200, 404, 404, 404]
    assert not [path for path in bench.public.asked if "unlisted" in path]


@pytest.mark.parametrize("redirected", [False, True])
def test_the_index_in_the_sandbox_leads_to_no_service_of_the_machine(
    bench: Bench, *, redirected: bool
) -> None:
    """Addresses on the daemon's loopback that a team's index lists or redirects to are not read."""
    code = f"""{FIND_INDEX}
def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
file, = json.loads(ask(index + "acme-lib/"))["files"]
pathlib.Path("acme_own/seen.py").write_text(ask(file["url"]))
"""
    with served({"/records": "words of another service"}) as within, served() as corp:
        address = f"{within.url}/records"
        corp.pages["/simple/acme-lib/"] = (
            f'<a href="{"/file" if redirected else address}">acme_lib-1.0-py3-none-any.whl</a>'
        )
        corp.pages["/file"] = f"→ {address}"
        bench.builder = bench.make_builder(allow_hosts=[corp.host])
        own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
        index = Index("corp", f"{corp.url}/simple/", ("acme-*",))
        seen = bench.paths(bench.build(bench.recipe(own, indexes=(index,))))["acme_own/seen.py"]
        assert f"{address} is not read for a build" in seen
        assert within.asked == []
        with pytest.raises(Stalled, match=f"{address} is not read") as caught:
            bench.lock(bench.recipe("acme-lib", indexes=(index,)))
        assert caught.value.reason == Reason.ADDRESS_REFUSED
        assert caught.value.place == Place(FILE, 7)


def test_a_teams_index_is_no_service_of_the_machine_itself(bench: Bench) -> None:
    """An index on loopback that only a definition names gets no request."""
    with served({"/simple/acme-lib/": "words"}) as within:
        index = Index("corp", f"{within.url}/simple/", ("acme-*",))
        with pytest.raises(Stalled, match="a loopback address"):
            bench.lock(bench.recipe("acme-lib", indexes=(index,)))
        assert within.asked == []


def test_build_requirements_come_from_the_index(bench: Bench) -> None:
    """A package's build gets what its `requires` asks for, without a network."""
    make_wheel(bench.public.folder, "tool", files={"tool.py": "word = 'from the index'\n"})
    code = "import pathlib, tool\npathlib.Path('acme_own/seen.py').write_text(tool.word)\n"
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
    project = bench.root / "trees" / own.tree / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", 'requires = ["tool"]'))
    assert bench.paths(bench.build(bench.recipe(own)))["acme_own/seen.py"] == "from the index"
