"""The share: publishing, faults of the disk, the loader on real interpreters, garbage."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gitsource.fields import ENV_REFUSED, ENV_REFUSED_PREFIXES
from reconciler.builder.inspection import inspect_base, runtime_of
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.runtime import Runtime
from reconciler.share import locks
from reconciler.share.atomic import sweep
from reconciler.share.gc import Held, collect_garbage
from reconciler.share.share import Share
from tests.fakes.base import VERSION, make_base

A, B, C = "a" * 16, "b" * 16, "c" * 16
DIGEST = "d" * 64
RUNTIME = "cp311-linux-airflow3.3.2-0123456789ab"
LOADER = Path(__file__).parents[2] / "reconciler" / "share" / "loader" / "sitecustomize.py"
PYENV = Path("~/.pyenv/versions").expanduser()
INTERPRETERS = [
    sys.executable,
    *sorted(map(str, PYENV.glob("3.9.*/bin/python3"))),  # those that are on this machine
    *sorted(map(str, PYENV.glob("3.1[0-9].*/bin/python3"))),
]


@pytest.fixture
def share(tmp_path: Path) -> Share:
    found = Share(tmp_path / "share")
    found.root.mkdir()
    found.prepare()
    return found


def stage(tmp_path: Path, name: str = "staged", text: str = "X = 1\n") -> Path:
    folder = tmp_path / name
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "acme_mod.py").write_text(text)
    return folder


def publish(share: Share, build: str, entries: tuple[str, ...] = (), **more: object) -> None:
    document = {"schema": 1, "build": build, "entries": list(entries), "paths": [], **more}
    share.put_build(build, {"pylock.toml": b"x", "build.json": json.dumps(document).encode()})


def point(share: Share, build: str | None, load_into: tuple[str, ...] = ("scheduler",)) -> None:
    share.point(
        "dev", RUNTIME, build, abi=_abi(sys.executable), airflow="3.3.2", load_into=load_into
    )


def _abi(python: str) -> str:
    words = "import sys,os; u=os.uname(); print('cp%d%d-%s_%s' % (*sys.version_info[:2],"
    words += " u.sysname.lower(), u.machine))"
    return subprocess.run(
        [python, "-I", "-c", words], check=True, capture_output=True, text=True, timeout=20
    ).stdout.strip()


# ------------------------------------------------------------------------------------- publishing


def test_an_entry_is_published_once_and_world_readable(share: Share, tmp_path: Path) -> None:
    """The second writer of a digest changes nothing."""
    path = share.put(DIGEST, stage(tmp_path))
    assert share.put(DIGEST, stage(tmp_path, "other", "X = 2\n")) == path
    assert (path / "lib" / "acme_mod.py").read_text() == "X = 1\n"
    assert all(p.stat().st_mode & 0o004 for p in path.rglob("*"))


def test_a_link_in_an_entry_is_refused(share: Share, tmp_path: Path) -> None:
    """Nothing on the share leads out of it."""
    staged = stage(tmp_path)
    (staged / "lib" / "link").symlink_to("/etc/passwd")
    with pytest.raises(Stalled):
        share.put(DIGEST, staged)
    assert not share.has(DIGEST)


def test_sweeping_passes_over_what_another_writer_has_published_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are placed side by side: a name may be gone when one looks at it."""
    (tmp_path / ".tmp-gone").write_text("")
    (tmp_path / ".tmp-left").write_text("")
    listed = list(os.scandir(tmp_path))
    (tmp_path / ".tmp-gone").unlink()
    monkeypatch.setattr(os, "scandir", lambda _: listed)
    assert sweep(tmp_path, now=time.time() + 7200.0) == 1
    assert not (tmp_path / ".tmp-left").exists()


def test_a_build_is_there_only_with_its_last_file(share: Share) -> None:
    """Without build.json there is no build, and nothing that is not verified counts as such."""
    with pytest.raises((GroundcrewError, AssertionError, KeyError)):
        share.put_build(A, {"pylock.toml": b"x"})
    assert share.build(A) is None
    publish(share, A)
    assert share.complete_builds() == [A]
    assert not share.verified(A, RUNTIME)
    share.mark_verified(A, RUNTIME, {"modules": 3})
    assert share.verified(A, RUNTIME)
    assert not share.verified(A, "another-runtime")


def test_a_pointer_without_a_listing_is_written_anew(share: Share) -> None:
    """A switch to the build that an earlier version has pointed at brings the listing."""
    words: dict[str, Any] = {"abi": "cp311-x", "airflow": "3.3.2", "load_into": ("scheduler",)}
    share.point("dev", RUNTIME, A, **words)
    assert share.points("dev", RUNTIME, A, **words)
    assert not share.points("dev", RUNTIME, A, **words, listing="0a1b2c3d")
    share.point("dev", RUNTIME, A, **words, listing="0a1b2c3d")
    assert share.points("dev", RUNTIME, A, **words, listing="0a1b2c3d")


def test_a_pointer_names_builds_of_the_newest_bases_only(share: Share) -> None:
    """With an image of each week it would grow for ever; what it leaves out it tells."""
    words: dict[str, Any] = {"abi": "cp311-x", "airflow": "3.3.2", "load_into": ("scheduler",)}
    names = [f"{number:016x}" for number in range(6)]
    for name in names:
        publish(share, name)
    for number in (0, 1, 2, 3, 0):
        share.point("dev", f"base-{number}", names[number], **words)
    pointer = share.pointer("dev")
    assert pointer is not None
    assert ([*pointer.builds], pointer.dropped) == (["base-1", "base-2", "base-3", "base-0"], ())
    for number, gone in ((4, 1), (5, 2)):
        share.point("dev", f"base-{number}", names[number], **words)
        assert share.points("dev", f"base-{number}", names[number], **words)
        pointer = share.pointer("dev")
        assert pointer is not None
        assert pointer.dropped == (names[gone],)
    assert [*pointer.builds] == ["base-3", "base-0", "base-4", "base-5"]
    assert garbage(share, time.time() + 1000, roots=set()) == (names[1],), "not what went just now"


def test_a_pointer_keeps_what_it_says_of_other_runtimes(share: Share) -> None:
    """Switching one runtime leaves the entries of others; None takes the entry away."""
    share.point("dev", "old", A, abi="cp310-x", airflow="2.11.2", load_into=["worker"])
    point(share, B)
    pointer = share.pointer("dev")
    assert pointer is not None
    assert {k: n.build for k, n in pointer.builds.items()} == {"old": A, RUNTIME: B}
    point(share, None)
    pointer = share.pointer("dev")
    assert pointer is not None
    assert list(pointer.builds) == ["old"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one mebibyte."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_while_publishing_leaves_the_state_before(
    small: Path, tmp_path: Path
) -> None:
    """The error says that the share is full; neither entry, build nor pointer is half there."""
    share = Share(small)
    share.prepare()
    publish(share, A)
    point(share, A)
    staged = stage(tmp_path)
    (staged / "lib" / "big").write_bytes(os.urandom(2 << 20))
    with pytest.raises(Retryable) as caught:
        share.put(DIGEST, staged)
    assert caught.value.reason == "ShareFull"
    assert not share.has(DIGEST)
    (small / "fill").write_bytes(b"x" * ((1 << 20) - 90_000))
    with pytest.raises(Retryable):
        share.put_build(B, {"pylock.toml": os.urandom(200_000), "build.json": b"{}"})
    assert share.build(B) is None
    pointer = share.pointer("dev")
    assert pointer is not None
    assert pointer.builds[RUNTIME].build == A
    (small / "fill").unlink()
    assert share.put(DIGEST, stage(tmp_path, "again"))


def test_a_read_only_share_says_so(small: Path) -> None:
    """The daemon does not start on a share that it cannot write."""
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(Stalled) as caught:
        Share(small).prepare()
    assert caught.value.reason == "ShareUnwritable"
    assert str(small) in caught.value.message


# ----------------------------------------------------------------------------------------- loader


ENV = {
    "ACME": "eu",
    "PYTHONHOME": "/no",
    "HOME": "/no",
    "AIRFLOW_HOME": "/no",
    "AIRFLOW_CONFIG": "/no",
    "AIRFLOW__CORE__EXECUTOR": "no",
    "WITH_NUL": "a\0b",
    "SURROGATE": "\ud800",
    "": "no name",
    "A=B": "no name",
    "LAST": "set",
}


class Site:
    """An interpreter with an Airflow beside it, and a build on the share."""

    def __init__(self, tmp_path: Path, share: Share, python: str) -> None:
        self.share = share
        self.python = python
        self.site = tmp_path / "base" / "site-packages"
        self.site.mkdir(parents=True)
        (self.site / "apache_airflow-3.3.2.dist-info").mkdir()
        (self.site / "owned.py").write_text("WHO = 'base'\n")
        entry = share.root / "store" / "sha256" / "dd" / DIGEST
        (entry / "lib").mkdir(parents=True)
        (entry / "bin").mkdir()
        (entry / "lib" / "owned.py").write_text("WHO = 'build'\n")
        (entry / "lib" / "acme_mod.py").write_text("X = 1\n")
        relative = f"store/sha256/dd/{DIGEST}"
        publish(
            share, A, (DIGEST,), abi=_abi(python), airflow="3.3.2", runtime=RUNTIME,
            paths=[{"path": f"{relative}/lib", "pth": False}], bin=[f"{relative}/bin"],
            jars=[f"{relative}/files/x.jar"], env=ENV,
        )  # fmt: skip
        share.install_loader("dev")
        share.point("dev", RUNTIME, A, abi=_abi(python), airflow="3.3.2", load_into=["scheduler"])
        self.loader = share.instance_path("dev") / "loader"

    def run(self, code: str, *extra: str, component: str = "scheduler", **env: str) -> str:
        done = subprocess.run(
            [self.python, *extra, "-c", code],
            env={
                "PATH": os.defpath, "GROUNDCREW_COMPONENT": component,
                "PYTHONPATH": f"{self.loader}:{self.site}", **env,
            },
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout.strip()


def test_a_variable_that_cannot_be_set_stops_no_other(share: Share, tmp_path: Path) -> None:
    """What would change Python or Airflow is passed over, and so is what no process can hold."""
    site = Site(tmp_path, share, sys.executable)
    code = f"import os, json; print(json.dumps({{n: os.environ.get(n) for n in {list(ENV)!r}}}))"
    seen = json.loads(site.run(code))
    assert {name for name, value in seen.items() if value is not None} == {"ACME", "LAST"}


def test_the_loader_and_the_definitions_refuse_the_same_variables() -> None:
    """What a definition may not set, the loader does not set either."""
    told: dict[str, object] = {}
    for node in ast.parse(LOADER.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            told |= {ast.unparse(name): ast.literal_eval(node.value) for name in node.targets}
    assert told["_REFUSED"] == ENV_REFUSED
    assert told["_REFUSED_PREFIXES"] == ENV_REFUSED_PREFIXES


HAS = "import importlib.util as u; print(u.find_spec('acme_mod') is not None)"


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_the_loader_gives_the_build_and_the_base_wins(
    python: str, share: Share, tmp_path: Path
) -> None:
    """On every interpreter: packages, programs, jars and variables; what the base has stays its."""
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
    """No Airflow, another component, isolated mode, a pin to none: nothing is loaded."""
    site = Site(tmp_path, share, sys.executable)
    assert site.run(HAS) == "True"
    assert site.run(HAS, component="api-server") == "False"
    assert site.run(HAS, "-I") == "False"
    assert site.run(HAS, GROUNDCREW_BUILD="none") == "False"
    (site.site / "apache_airflow-3.3.2.dist-info").rmdir()
    assert site.run(HAS) == "False"


def test_a_pin_wins_over_the_pointer(share: Share, tmp_path: Path) -> None:
    """A child of a running task stays on its build after a switch."""
    site = Site(tmp_path, share, sys.executable)
    point(share, None)
    assert site.run(HAS) == "False"
    assert site.run(HAS, GROUNDCREW_BUILD=A) == "True"


class Bases(Site):
    """Two bases of one Airflow, as before and after an installation, and a build for each."""

    def __init__(self, tmp_path: Path, share: Share, python: str) -> None:
        super().__init__(tmp_path, share, python)
        publish(share, B, abi=_abi(python), airflow="3.3.2")
        self.install("apache-airflow", "3.3.2")

    def install(self, name: str, version: str) -> None:
        """Put another distribution into the base."""
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def inspect(self) -> Runtime:
        """What the inspection of this base says, run as in its image."""
        script = Path(inspect_base.__code__.co_filename).with_name("inspect_base.py")
        done = subprocess.run(
            [self.python, str(script)],
            env={"PATH": os.defpath, "PYTHONPATH": str(self.site)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return runtime_of(json.loads(done.stdout), self.python)

    def point(self, build: str | None, *, marked: bool = True) -> Runtime:
        """Let the base as it is use a build; `marked`: as this release writes it."""
        runtime = self.inspect()
        self.share.point(
            "dev", runtime.key, build, abi=_abi(self.python), airflow="3.3.2",
            load_into=["scheduler"], listing=runtime.listing if marked else "",
        )  # fmt: skip
        return runtime

    def loaded(self) -> str:
        """The build that a process of the base as it is starts with."""
        return self.run("import os; print(os.environ['GROUNDCREW_BUILD'])")


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_each_base_of_one_airflow_loads_its_own_build(
    python: str, share: Share, tmp_path: Path
) -> None:
    """After an installation the new base loads its build, and processes of the old one theirs."""
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
    """The loader sees the listing that the daemon's isolated inspection of a venv has seen."""
    python = make_base(tmp_path / "base", {"more": "1.0"})
    abi, loader = _abi(python), share.install_loader("dev")
    runtime = inspect_base(python)
    for key, build, listing in ((runtime.key, A, runtime.listing), ("other", B, "another")):
        publish(share, build, abi=abi, airflow=VERSION)
        share.point(
            "dev", key, build, abi=abi, airflow=VERSION, load_into=["scheduler"], listing=listing
        )
    done = subprocess.run(
        [python, "-c", "import os; print(os.environ['GROUNDCREW_BUILD'])"],
        env={"PYTHONPATH": str(loader)}, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == A


def test_the_newest_entry_is_taken_where_none_says_which_base_it_is_for(
    share: Share, tmp_path: Path
) -> None:
    """A pointer of an earlier release: the build that was pointed at last, never an older one."""
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
    """The pointer still names a build for the base before; this one is bare all the same."""
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


def test_a_shadowed_sitecustomize_still_runs(share: Share, tmp_path: Path) -> None:
    """Another sitecustomize further down the path is run after the loader."""
    site = Site(tmp_path, share, sys.executable)
    (site.site / "sitecustomize.py").write_text("import os; os.environ['SHADOWED'] = 'ran'\n")
    assert site.run("import os; print(os.environ.get('SHADOWED'))") == "ran"


# ---------------------------------------------------------------------------------------- garbage


def garbage(share: Share, now: float, *held: Held, roots: set[str]) -> tuple[str, ...]:
    done = collect_garbage(share, roots=roots, held=held, now=now, grace=10.0, dry_run=False)
    return done.builds


def test_what_may_still_be_loaded_stays(share: Share) -> None:
    """Roots, pointed builds, and whatever was current since the oldest process started."""
    now = time.time() + 1000
    for build in (A, B, C):
        publish(share, build)
    point(share, A)
    alive = Held(((B, now - 100),), oldest_process=now - 200)
    assert garbage(share, now, alive, roots=set()) == (C,)
    unknown = Held(((B, now - 100),), oldest_process=None)
    assert garbage(share, now, unknown, roots=set()) == ()
    ended = Held(((B, now - 100),), oldest_process=now - 50)
    assert garbage(share, now, ended, roots=set()) == (B,)
    assert share.complete_builds() == [A]


def test_entries_go_with_the_last_build_that_names_them(share: Share, tmp_path: Path) -> None:
    """A shared entry stays as long as one build needs it."""
    share.put(DIGEST, stage(tmp_path))
    publish(share, A, (DIGEST,))
    publish(share, B, (DIGEST,))
    now = time.time() + 1000
    assert garbage(share, now, roots={A}) == (B,)
    assert share.has(DIGEST)
    assert garbage(share, now, roots=set()) == (A,)
    assert not share.has(DIGEST)


def test_nothing_is_collected_while_a_build_is_placed(share: Share) -> None:
    """The collector gives way, and the builder does not start in the middle of a collection."""
    with share.making(), pytest.raises(Retryable) as caught:
        garbage(share, time.time(), roots=set())
    assert caught.value.reason == "BuildsRunning"
    with locks.collecting(share.root), pytest.raises(Retryable), locks.collecting(share.root):
        raise AssertionError("two collectors at once")


def test_a_lock_that_the_share_refuses_is_the_shares_trouble(
    share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a bug, nor a build's fault: it is waited for."""

    def refuse(_handle: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(Retryable, match="locking the share") as caught, share.making():
        raise AssertionError("nobody holds a lock")
    assert caught.value.reason == "ShareUnreachable"
