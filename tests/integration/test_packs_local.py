"""Packs on a machine's own disk: unpacking, trust and eviction."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.share.atomic import replace_file
from tests.harness.disk import small_disk
from tests.harness.packed_share import BIG, HUGE, OTHER, WHERE, Site
from tests.harness.shares import DIGEST, INTERPRETERS, A, B


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_hot_files_are_local_and_nothing_is_missing(python: str, tmp_path: Path) -> None:
    """On every interpreter hot files are local, and the rest are links to the share."""
    site = Site(tmp_path, python)
    code = """
import acme_mod, acme_pkg, acme_pkg.rare, json, os, hashlib, importlib.metadata as m
top = os.path.dirname(acme_pkg.__file__)
data = open(os.path.join(top, "table.bin"), "rb").read()
print(json.dumps([acme_mod.__file__, os.path.realpath(acme_mod.__file__),
    os.path.realpath(acme_pkg.rare.__file__), open(os.path.join(top, "data", "one.txt")).read(),
    hashlib.sha256(data).hexdigest(), m.version("acme"), sorted(os.listdir(top))]))
"""
    mod, real, rare, one, table, version, names = json.loads(site.run(code))
    assert mod.startswith(str(site.local))
    assert real.startswith(str(site.local))
    assert rare.startswith(str(site.share.root))
    assert (one, version) == ("one", "1.0")
    assert table == __import__("hashlib").sha256(BIG).hexdigest()
    assert {"__init__.py", "data", "rare.py", "table.bin"} <= set(names)
    assert json.loads(site.run(code))[0] == mod, "the next process uses the same"
    assert len(site.data()) == 1


def test_a_further_process_asks_the_share_for_two_documents(site: Site) -> None:
    """It reads the loader and the pointer: notes of the first process say where its packs are."""
    first = site.run(WHERE)
    hot = site.share.build_path(A) / "hot.json"
    module = site.loader / "groundcrew_local.py"
    hot.rename(hot.with_name("gone"))
    module.rename(module.with_name("gone.py"))
    assert site.run(WHERE) == first
    assert site.said == ""
    assert site.run(f"import sys; print({str(site.loader)!r} in sys.path)") == "False"


@pytest.mark.parametrize("harm", ["evicted", "broken", "gone", "another build.json"])
def test_what_was_noted_of_a_build_is_not_trusted_further_than_it_holds(
    harm: str, site: Site
) -> None:
    """Without its note, or if a pack is missing, a process starts from the beginning."""
    first = site.run(WHERE)
    (note,) = site.local.glob("*/*/.build-*")
    match harm:
        case "evicted":
            (data,) = site.local.glob("*/*/.data/*")
            data.rename(data.with_name("gone"))
        case "broken":
            note.write_text("[")
        case "gone":
            note.unlink()
        case "another build.json":  # it is used, whatever the note says
            document = site.share.build_path(A) / "build.json"
            kept = json.loads(document.read_text())
            replace_file(document, json.dumps({**kept, "env": {"TOLD": "anew"}}).encode(), "test")
            assert site.run("import os; print(os.environ['TOLD'])") == "anew"
    assert site.run(WHERE) == first
    assert Path(first).is_file()


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["head", "block", "short", "gone", "empty"])
def test_a_spoiled_pack_is_not_used(harm: str, site: Site) -> None:
    """Whatever is wrong with a pack, the share's own files are used, with a message."""
    size = site.pack.stat().st_size
    match harm:
        case "head":
            _flip(site.pack, 20)
        case "block":
            _flip(site.pack, size - 1)
        case "short":
            os.truncate(site.pack, size - 100)
        case "gone":
            site.pack.unlink()
        case "empty":
            os.truncate(site.pack, 0)
    assert site.run(WHERE).startswith(str(site.share.root))
    assert "groundcrew: pack of" in site.said
    assert site.data() == []


def test_processes_that_start_together_unpack_once(site: Site) -> None:
    """One takes the lock; the others wait and use its result."""
    running = [site.begin(WHERE) for _ in range(8)]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    assert len(outputs) == 1
    assert outputs.pop().startswith(str(site.local))
    assert len(site.data()) == 1


def test_who_only_waited_takes_no_notes_away(site: Site) -> None:
    """If another process unpacked everything meanwhile, its notes on other builds stay."""
    site.run(WHERE)
    (note,) = site.local.glob("*/*/.build-*")
    (link,) = note.parent.glob(f"{DIGEST}-*")
    other = note.rename(note.with_name(".build-other"))
    hidden = link.rename(link.with_name(".hidden"))
    path = note.with_name(".lock")
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = site.begin(WHERE)
        deadline = time.monotonic() + 30
        while not _has_open(process.pid, path) and time.monotonic() < deadline:
            time.sleep(0.01)
        hidden.rename(link)
    out, _ = process.communicate(timeout=60)
    assert out.startswith(str(site.local))
    assert (note.is_file(), other.is_file()) == (True, True)


def _has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # a file that was closed just now
        return any(fd.readlink() == path for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_a_killed_process_leaves_nothing_in_the_way(site: Site) -> None:
    """After a kill during unpacking, the next process cleans up and unpacks again."""
    module = site.loader / "groundcrew_local.py"
    module.write_text(module.read_text() + "\nos.pwrite = lambda *_: os._exit(9)\n")
    process = site.begin(WHERE)
    process.communicate(timeout=60)
    assert process.returncode == 9
    (left,) = site.data()
    site.share.install_loader("dev")
    assert site.run(WHERE).startswith(str(site.local))
    assert left not in site.data()
    assert len(site.data()) == 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Yield a real file system of four mebibytes."""
    with small_disk(tmp_path / "small", "4m") as folder:
        yield folder


def test_a_full_local_disk_means_the_share(site: Site, small: Path) -> None:
    """Nothing is unpacked unless there is space for all of it."""
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(site.share.root))
    assert [p for p in small.rglob("*") if p.is_file() and p.name != ".lock"] == []


def test_a_read_only_local_disk_means_the_share_or_the_next_folder(site: Site, small: Path) -> None:
    """The first writable folder of the list is used."""
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(site.share.root))
    both = f"{small}:{site.local}"
    assert site.run(WHERE, GROUNDCREW_LOCAL=both).startswith(str(site.local))


def test_a_folder_that_cannot_serve_shared_objects_is_not_taken(site: Site, small: Path) -> None:
    """A shared object cannot be loaded from a file system that forbids execution."""
    subprocess.run(["mount", "-o", "remount,noexec,size=512m", str(small)], check=True)
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(site.share.root))
    subprocess.run(["mount", "-o", "remount,exec", str(small)], check=True)
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(small))


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_the_local_folder_is_used_under_any_umask(site: Site, umask: int) -> None:
    """Airflow's official image sets 0002; a missing parent folder is created as well."""
    above = site.local / "cache" / "groundcrew"
    before = os.umask(umask)
    try:
        assert site.run(WHERE, GROUNDCREW_LOCAL=str(above)).startswith(str(above))
    finally:
        os.umask(before)
    folders = [above, *above.glob("groundcrew-*"), *above.glob("groundcrew-*/*")]
    assert len(folders) >= 3
    assert [f for f in folders if f.is_dir() and f.stat().st_mode & 0o022] == []


def test_a_folder_that_others_may_write_is_not_trusted(site: Site) -> None:
    """Another user could have put code there."""
    folder = site.local / f"groundcrew-{os.getuid()}"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert site.run(WHERE).startswith(str(site.share.root))
    on_share = site.share.root / "somewhere"
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(on_share)).startswith(str(site.share.root))
    assert not on_share.exists()


def test_eviction_takes_nothing_from_a_running_process(site: Site) -> None:
    """A process whose packs are evicted keeps the same paths, which then lead to the share."""
    size = 3 * len(BIG) + len(HUGE)
    files = {"lib/other_mod.py": b"Z = 3\n", "lib/other.bin": os.urandom(size)}
    site.add(B, OTHER, files)
    site.share.put_packs(B, {OTHER: set(files)})
    limit = str(size + 100_000)  # space for one of them
    code = (
        "import sys, acme_mod; print('up', flush=True); sys.stdin.readline();"
        "import acme_pkg, acme_pkg.rare, os;"
        "print(os.path.realpath(acme_pkg.__file__), acme_pkg.__file__)"
    )
    process = subprocess.Popen(
        [site.python, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            "PATH": os.defpath,
            "GROUNDCREW_COMPONENT": "scheduler",
            "GROUNDCREW_LOCAL": str(site.local),
            "GROUNDCREW_LOCAL_LIMIT": limit,
            "PYTHONPATH": f"{site.loader}:{site.base}",
        },
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (before,) = site.data()
    other = "import other_mod; print(other_mod.__file__)"
    output = site.run(other, GROUNDCREW_BUILD=B, GROUNDCREW_LOCAL_LIMIT=limit)
    assert output.startswith(str(site.local))
    (after,) = site.data()
    assert after != before
    out, _ = process.communicate("go\n", timeout=60)
    real, path = out.split()
    assert real.startswith(str(site.share.root))
    assert path.startswith(str(site.local))


def test_a_pack_larger_than_the_limit_is_left_on_the_share(site: Site) -> None:
    """The limit holds even if there is no other pack."""
    assert site.run(WHERE, GROUNDCREW_LOCAL_LIMIT="1000").startswith(str(site.share.root))
    assert site.data() == []


def test_an_earlier_boot_leaves_nothing(site: Site) -> None:
    """Files that a crash of the machine may have cut short belong to another boot."""
    site.run(WHERE)
    (folder,) = site.local.glob("*/*")
    old = folder.with_name(f"{folder.name.split('-')[0]}-0ldb00t0")
    folder.rename(old)
    assert site.run(WHERE).startswith(str(site.local))
    assert not old.exists()


def test_a_umask_that_lets_the_group_write_changes_nothing(site: Site) -> None:
    """The official Airflow image sets 0002; the folders are private all the same, and used."""
    before = os.umask(0o002)
    try:
        output = site.run(WHERE)
    finally:
        os.umask(before)
    assert output.startswith(str(site.local))
    made = [path for path in site.local.rglob("*") if path.is_dir() and path.parent == site.local]
    made += [path for top in made for path in top.iterdir() if path.is_dir()]
    assert made
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
