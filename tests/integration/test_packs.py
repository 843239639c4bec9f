"""Packs: what is in them, and the loader that unpacks them, on real interpreters and disks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.share.atomic import replace_file
from reconciler.share.gc import collect_garbage
from reconciler.share.hot import Need, pack_path
from reconciler.share.loader.groundcrew_packs import Spoiled, read_block
from reconciler.share.packs import Pack, held, read_head, read_member
from reconciler.share.share import Share
from tests.fakes.shares import DIGEST, INTERPRETERS, RUNTIME, A, B, _abi, publish

OTHER = "e" * 64
BIG = bytes(range(256)) * 3_600  # the third of these is in two blocks
HUGE = bytes(range(255)) * 20_000 + b"end"  # so large that it is read where it lies
LIBRARY = "lib/acme_pkg/library.bin"
TABLES = {f"lib/acme_pkg/{name}.bin" for name in ("first", "second", "table")}
HOT = {"lib/acme_mod.py", "lib/acme_pkg/__init__.py", LIBRARY, *TABLES}
FILES: dict[str, bytes] = {
    "lib/acme_mod.py": b"X = 1\n",
    "lib/acme_pkg/__init__.py": b"",
    **dict.fromkeys(TABLES, BIG),
    LIBRARY: HUGE,
    "lib/acme_pkg/rare.py": b"Y = 2\n",
    "lib/acme_pkg/data/one.txt": b"one",
    "lib/acme-1.0.dist-info/METADATA": b"Name: acme\nVersion: 1.0\n",
    "lib/acme-1.0.dist-info/RECORD": b"",
}
WHERE = "import acme_mod; print(acme_mod.__file__)"


class Site:
    """A share with a build that has packs, and an interpreter with an Airflow beside it."""

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self.root = root
        self.python = python
        self.share = Share(root / "share")
        self.share.root.mkdir()
        self.share.prepare()
        self.local = root / "local"
        self.base = root / "base" / "site-packages"
        (self.base / "apache_airflow-3.3.2.dist-info").mkdir(parents=True)
        self.add(A, DIGEST, FILES)
        self.share.put_packs(A, {DIGEST: HOT})
        self.loader = self.share.install_loader("dev")
        self.share.point(
            "dev", RUNTIME, A, abi=_abi(python), airflow="3.3.2", load_into=["scheduler"]
        )

    def add(self, build: str, digest: str, files: dict[str, bytes]) -> None:
        """Put an entry and a build that names it on the share."""
        staged = self.root / f"staged-{digest[:4]}"
        for name, data in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(data)
        entry = self.share.put(digest, staged).relative_to(self.share.root)
        publish(
            self.share, build, (digest,), abi=_abi(self.python), airflow="3.3.2",
            runtime=RUNTIME, paths=[{"path": f"{entry}/lib", "pth": False}],
        )  # fmt: skip

    @property
    def pack(self) -> Path:
        """The pack of build A."""
        return pack_path(self.share.entry(DIGEST), self.share.packs(A)[DIGEST].sha256)

    def begin(self, code: str, **env: str) -> subprocess.Popen[str]:
        """Start the interpreter."""
        return subprocess.Popen(
            [self.python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={
                "PATH": os.defpath, "GROUNDCREW_COMPONENT": "scheduler",
                "GROUNDCREW_LOCAL": str(self.local),
                "PYTHONPATH": f"{self.loader}:{self.base}", **env,
            },
        )  # fmt: skip

    def run(self, code: str, **env: str) -> str:
        """What a process prints; it ends well."""
        process = self.begin(code, **env)
        out, self.said = process.communicate(timeout=60)
        assert process.returncode == 0, self.said
        assert "Traceback" not in self.said, self.said
        return out.strip()

    def data(self) -> list[str]:
        """Names of the unpacked packs."""
        return sorted(p.name for p in self.local.glob("*/*/.data/*"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_hot_files_are_local_and_nothing_is_missing(python: str, tmp_path: Path) -> None:
    """On every interpreter: what is hot is a file of this machine, the rest leads to the share."""
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


SMALL = {"lib/acme_mod.py": b"X = 1\n" * 100, "lib/acme_pkg/__init__.py": b""}


def _small(site: Site) -> Path:
    """The pack of build B, which is small; the pointer names that build."""
    site.add(B, OTHER, SMALL)
    site.share.put_packs(B, {OTHER: SMALL.keys()})
    site.share.point(
        "dev", RUNTIME, B, abi=_abi(site.python), airflow="3.3.2", load_into=["scheduler"]
    )
    return pack_path(site.share.entry(OTHER), site.share.packs(B)[OTHER].sha256)


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_a_small_pack_is_packed_by_xz(python: str, tmp_path: Path) -> None:
    """It is smaller so, is read on every interpreter, and is nothing for earlier loaders."""
    site = Site(tmp_path, python)
    path = _small(site)
    pack, index = read_head(path)
    assert path.read_bytes()[:8] == b"GCPACK2\n"
    assert [block.get("xz") for block in index["blocks"]] == [True]
    assert read_member(path, index, "lib/acme_mod.py") == SMALL["lib/acme_mod.py"]
    assert site.run(WHERE).startswith(str(site.local)), site.said
    assert site.pack.read_bytes()[:8] == b"GCPACK1\n", "what is large is packed by zlib"
    assert pack.bytes == sum(map(len, SMALL.values()))


def test_a_python_without_xz_uses_the_share(site: Site) -> None:
    """It waits for nobody, and takes nothing from the others: neither packs nor what is noted."""
    site.run(WHERE)
    (note,) = site.local.glob("*/*/.build-*")
    unpacked = site.data()
    _small(site)
    module = site.loader / "groundcrew_local.py"
    module.write_text(module.read_text() + "\nsys.modules['_lzma'] = None\n")
    with (note.parent / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another one unpacks
        limit = str(site.share.packs(A)[DIGEST].bytes)
        at = site.run(WHERE, GROUNDCREW_LOCAL_LIMIT=limit)
    assert at.startswith(str(site.share.root))
    assert site.said == ""
    assert (note.is_file(), site.data()) == (True, unpacked)
    module.unlink()
    assert site.run(WHERE) == at, "that is noted: a further process asks nothing"
    assert site.said == ""


def test_a_daemon_without_xz_makes_packs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones are then packed by zlib, too."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert _small(site).read_bytes()[:8] == b"GCPACK1\n"
    assert site.run(WHERE).startswith(str(site.local)), site.said


def test_a_large_file_is_local_and_lies_on_the_share_once(site: Site) -> None:
    """The pack names it and holds nothing of it; what is unpacked is the same to the last byte."""
    _, index = read_head(site.pack)
    apart = [block for block in index["blocks"] if block.get("apart")]
    assert {block["parts"][0][0] for block in apart} == {LIBRARY}
    assert sum(block["packed"] for block in apart) == len(HUGE)
    assert LIBRARY in held(index)
    inside = [part[0] for block in index["blocks"] for part in block["parts"] if part[0] in TABLES]
    assert len(inside) == len(TABLES) + 1, "one of them begins in a block and ends in the next"
    assert site.pack.stat().st_size < len(BIG)
    assert site.share.packs(A)[DIGEST].bytes > len(HUGE), "the room it takes counts"
    path = Path(site.run("import acme_pkg; print(acme_pkg.__path__[0])"), "library.bin")
    assert path.is_relative_to(site.local)
    assert not path.is_symlink()
    assert path.read_bytes() == HUGE


def test_a_large_file_that_is_not_what_it_was_is_not_taken(site: Site) -> None:
    """A changed byte, an end that is missing, no file: told, and the share is used."""
    library = site.share.entry(DIGEST) / LIBRARY
    library.chmod(0o644)
    for damaged in (HUGE[:-1] + b"!", HUGE[:-1], HUGE[: 3 << 20], b"", None):
        if damaged is None:
            library.unlink()
        else:
            library.write_bytes(damaged)
        assert site.run(WHERE).startswith(str(site.share.root)), damaged and len(damaged)
        assert "using the share" in site.said
        assert site.data() == []
    library.write_bytes(HUGE)
    assert site.run(WHERE).startswith(str(site.local))
    assert site.said == ""


def test_a_build_without_packs_is_loaded_from_the_share(site: Site) -> None:
    """As builds of earlier releases are, and all where GROUNDCREW_LOCAL is off."""
    assert site.run(WHERE, GROUNDCREW_LOCAL="off").startswith(str(site.share.root))
    assert not site.local.exists()
    (site.share.build_path(A) / "hot.json").unlink()
    assert site.run(WHERE).startswith(str(site.share.root))
    assert not site.local.exists()


@pytest.mark.parametrize("named_by", ["hot.json", "build.json"])
def test_a_build_is_loaded_from_whole_packs_until_it_has_hot_ones(
    named_by: str, site: Site
) -> None:
    """And nothing is noted of them, as they go; builds of earlier releases name them elsewhere."""
    staged = site.root / "staged"
    for name, data in SMALL.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(data)
    whole = site.share.put_whole(OTHER, staged, {}).whole
    assert whole is not None
    path = site.share.entry(OTHER).relative_to(site.share.root)
    document: dict[str, object] = {
        "schema": 1, "build": B, "entries": [OTHER], "abi": _abi(site.python),
        "paths": [{"path": f"{path}/lib", "pth": False}],
    }  # fmt: skip
    packs = {OTHER: (whole.sha256, whole.bytes)}
    if named_by == "build.json":
        document["packs"] = {OTHER: {"pack": whole.sha256, "bytes": whole.bytes, "whole": True}}
        packs = {}
    site.share.put_build(B, {"build.json": json.dumps(document).encode()}, packs)
    assert site.share.packs(B) == {}, "no hot ones"
    assert site.run(WHERE, GROUNDCREW_BUILD=B).startswith(str(site.local))
    assert not list(site.local.glob("*/*/.build-*"))
    site.share.spread_build(B, lambda: None)
    site.share.put_packs(B, {OTHER: SMALL.keys()})
    assert site.run(WHERE, GROUNDCREW_BUILD=B).startswith(str(site.local))
    assert len(list(site.local.glob("*/*/.build-*"))) == 1


def test_a_folder_that_imports_look_into_is_local_and_leads_to_what_it_holds(site: Site) -> None:
    """Those that were listed, and one of a module's name beside it; others are links as a whole."""
    files = {
        "lib/space/listed/rare.py": b"X = 1\n",
        "lib/space/module.py": b"Y = 2\n",
        "lib/space/module/stub.pyi": b"",
        "lib/space/other/data.txt": b"",
    }
    site.add(B, OTHER, files)
    told = {"lib/space/module.py", "lib/space/listed/", "lib/no such/", "/", "../../"}
    site.share.put_packs(B, {OTHER: told})
    code = (
        "import os, space.module, space.listed.rare as r;"
        "top = os.path.dirname(space.module.__file__);"
        "print(r.X + space.module.Y, *(os.path.islink(os.path.join(top, n)) for n in "
        "('listed', 'module', 'other', 'listed/rare.py', 'module/stub.pyi')))"
    )
    assert site.run(code, GROUNDCREW_BUILD=B) == "3 False False True True True"
    first = site.share.packs(B)
    site.share.put_packs(B, {OTHER: told | {"lib/space/other/"}})
    assert site.share.packs(B) != first, "a pack that lacks a folder will not do"


def test_a_further_process_asks_the_share_for_two_documents(site: Site) -> None:
    """The loader and the pointer: what the first process noted tells where its packs are."""
    first = site.run(WHERE)
    hot = site.share.build_path(A) / "hot.json"
    module = site.loader / "groundcrew_local.py"
    hot.rename(hot.with_name("gone"))
    module.rename(module.with_name("gone.py"))
    assert site.run(WHERE) == first
    assert site.said == ""
    assert site.run("import sys; print([p for p in sys.path if 'loader' in p])") == "[]"


@pytest.mark.parametrize("harm", ["evicted", "broken", "gone", "another build.json"])
def test_what_was_noted_of_a_build_is_not_trusted_further_than_it_holds(
    harm: str, site: Site
) -> None:
    """Without its note, or where a pack is no longer there, a process begins anew."""
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
        case "another build.json":  # it is taken, whatever was noted
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
    """Whatever is wrong with a pack: the share's own files are used, and it is said."""
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


@pytest.mark.parametrize("method", ["zlib", "xz", ""])
def test_a_block_that_is_not_as_large_as_its_parts_is_spoiled(method: str, tmp_path: Path) -> None:
    """A file would be cut short, or another one's bytes taken for its own."""
    pack = {"zlib": zlib.compress, "xz": lzma.compress, "": bytes}[method](b"three")
    path = tmp_path / "block"
    path.write_bytes(pack)
    block = {"packed": len(pack), "sha256": hashlib.sha256(pack).hexdigest()}
    block |= {"zlib": method == "zlib", "xz": method == "xz"}
    with path.open("rb") as file:
        for size in (4, 5, 6):
            block["parts"] = [["lib/x.py", 0, size, 0o644]]
            if size == 5:
                assert read_block(file.fileno(), block, 0) == b"three"
                continue
            with pytest.raises(Spoiled, match="not as large"):
                read_block(file.fileno(), block, 0)


def test_processes_that_start_together_unpack_once(site: Site) -> None:
    """One takes the lock, the others wait and use what it made."""
    running = [site.begin(WHERE) for _ in range(8)]
    found = {process.communicate(timeout=60)[0] for process in running}
    assert len(found) == 1
    assert found.pop().startswith(str(site.local))
    assert len(site.data()) == 1


def test_who_only_waited_takes_no_notes_away(site: Site) -> None:
    """Another process has unpacked all meanwhile: what it noted of other builds stays."""
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
    with contextlib.suppress(FileNotFoundError):  # of a file that is closed just now
        return any(fd.readlink() == path for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_a_killed_process_leaves_nothing_in_the_way(site: Site) -> None:
    """Cut short while it unpacks: the next one cleans up and unpacks anew."""
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
    """A real file system of four mebibytes."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_local_disk_means_the_share(site: Site, small: Path) -> None:
    """Nothing is begun where there is no room for all of it."""
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(site.share.root))
    assert [p for p in small.rglob("*") if p.is_file() and p.name != ".lock"] == []


def test_a_read_only_local_disk_means_the_share_or_the_next_folder(site: Site, small: Path) -> None:
    """The first folder of the list that can be written is taken."""
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(site.share.root))
    both = f"{small}:{site.local}"
    assert site.run(WHERE, GROUNDCREW_LOCAL=both).startswith(str(site.local))


def test_a_folder_that_cannot_serve_shared_objects_is_not_taken(site: Site, small: Path) -> None:
    """Where programs may not run, no shared object can be loaded."""
    subprocess.run(["mount", "-o", "remount,noexec,size=512m", str(small)], check=True)
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(site.share.root))
    subprocess.run(["mount", "-o", "remount,exec", str(small)], check=True)
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(small)).startswith(str(small))


def test_a_folder_that_others_may_write_is_not_trusted(site: Site) -> None:
    """Somebody else could have put code there."""
    folder = site.local / f"groundcrew-{os.getuid()}"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert site.run(WHERE).startswith(str(site.share.root))
    on_share = site.share.root / "somewhere"
    assert site.run(WHERE, GROUNDCREW_LOCAL=str(on_share)).startswith(str(site.share.root))
    assert not on_share.exists()


def test_eviction_takes_nothing_from_a_running_process(site: Site) -> None:
    """A process whose packs go goes on with the same paths, which now lead to the share."""
    size = 3 * len(BIG) + len(HUGE)
    files = {"lib/other_mod.py": b"Z = 3\n", "lib/other.bin": os.urandom(size)}
    site.add(B, OTHER, files)
    site.share.put_packs(B, {OTHER: set(files)})
    limit = str(size + 100_000)  # room for one of them
    code = (
        "import sys, acme_mod; print('up', flush=True); sys.stdin.readline();"
        "import acme_pkg, acme_pkg.rare, os;"
        "print(os.path.realpath(acme_pkg.__file__), acme_pkg.__file__)"
    )
    process = subprocess.Popen(
        [site.python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={
            "PATH": os.defpath, "GROUNDCREW_COMPONENT": "scheduler",
            "GROUNDCREW_LOCAL": str(site.local), "GROUNDCREW_LOCAL_LIMIT": limit,
            "PYTHONPATH": f"{site.loader}:{site.base}",
        },
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (before,) = site.data()
    other = "import other_mod; print(other_mod.__file__)"
    found = site.run(other, GROUNDCREW_BUILD=B, GROUNDCREW_LOCAL_LIMIT=limit)
    assert found.startswith(str(site.local))
    (after,) = site.data()
    assert after != before
    out, _ = process.communicate("go\n", timeout=60)
    real, path = out.split()
    assert real.startswith(str(site.share.root))
    assert path.startswith(str(site.local))


def test_a_pack_larger_than_the_limit_is_left_on_the_share(site: Site) -> None:
    """The limit holds whatever is asked for."""
    assert site.run(WHERE, GROUNDCREW_LOCAL_LIMIT="1000").startswith(str(site.share.root))
    assert site.data() == []


def test_an_earlier_boot_leaves_nothing(site: Site) -> None:
    """Files that a crash of the machine may have cut short are not those of this boot."""
    site.run(WHERE)
    (place,) = site.local.glob("*/*")
    old = place.with_name(f"{place.name.split('-')[0]}-0ldb00t0")
    place.rename(old)
    assert site.run(WHERE).startswith(str(site.local))
    assert not old.exists()


# -------------------------------------------------------------------------------- on the share


def _files(site: Site, pack: Pack) -> set[str]:
    """The files that a pack of the entry holds."""
    found = held(read_head(pack_path(site.share.entry(DIGEST), pack.sha256))[1])
    return {path for path in found if not path.endswith("/")}


def test_a_pack_that_will_do_is_used_again(site: Site) -> None:
    """Packs are made for what is not yet in one, and not for fewer files of a small one."""
    first = site.share.packs(A)
    site.add(B, DIGEST, FILES)
    needs = site.share.put_packs(B, {DIGEST: HOT - {"lib/acme_mod.py"}})
    assert needs == {DIGEST: Need(5, 3 * len(BIG) + len(HUGE))}, (
        "what is needed, whatever the pack holds"
    )
    assert site.share.packs(B) == first
    site.share.put_packs(B, {DIGEST: {"lib/acme_mod.py"}})
    assert site.share.packs(B) != first, "one that is much too large will not do"
    site.share.put_packs(B, {DIGEST: HOT | {"lib/acme_pkg/rare.py"}})
    pack = site.share.packs(B)[DIGEST]
    assert _files(site, pack) == HOT | {"lib/acme_pkg/rare.py", "lib/acme-1.0.dist-info/METADATA"}


def test_hot_paths_are_names_only(site: Site, tmp_path: Path) -> None:
    """A report made by a team's code takes nothing into a pack that is not the entry's."""
    (tmp_path / "secret").write_text("s3cret")
    told = {"lib/acme_mod.py", "../../../../secret", str(tmp_path / "secret"), "entry.json", "lib"}
    site.add(B, DIGEST, FILES)
    site.share.put_packs(B, {DIGEST: told, "../../x": {"y"}})
    assert list(site.share.packs(B)) == [DIGEST]
    pack = site.share.packs(B)[DIGEST]
    assert _files(site, pack) == {"lib/acme_mod.py", "lib/acme-1.0.dist-info/METADATA"}


def test_packs_go_with_the_last_build_that_names_them(site: Site) -> None:
    """A pack that no build names goes, also where its entry stays; others stay."""
    kept = site.pack
    site.add(B, DIGEST, FILES)
    site.share.put_packs(B, {DIGEST: {"lib/acme_mod.py"}})
    gone = pack_path(site.share.entry(DIGEST), site.share.packs(B)[DIGEST].sha256)
    size = site.share.size()

    def collect(**more: Any) -> tuple[str, ...]:
        done = collect_garbage(
            site.share, roots=set(), held=(), now=time.time() + 1000, grace=10.0, **more
        )
        return done.entries

    assert collect(dry_run=True) == (gone.name,)
    assert gone.is_file()
    assert collect(dry_run=False) == (gone.name,)
    assert kept.is_file()
    assert not gone.exists()
    assert site.share.size() < size
    site.share.point("dev", RUNTIME, None, abi="x", airflow="3.3.2", load_into=[])
    assert set(collect(dry_run=False)) == {kept.name, DIGEST}


def test_one_file_of_a_pack_is_read_without_the_others(site: Site) -> None:
    """One of several blocks, one of a few bytes, one that is not there; a spoiled block is told."""
    _, index = read_head(site.pack)
    assert read_member(site.pack, index, "lib/acme_pkg/table.bin") == BIG
    assert read_member(site.pack, index, "lib/acme_mod.py") == b"X = 1\n"
    assert read_member(site.pack, index, "lib/none.py") == b""
    assert read_member(site.pack, index, LIBRARY) == b"", "it lies apart"
    data = bytearray(site.pack.read_bytes())
    data[-1] ^= 1
    site.pack.write_bytes(data)
    assert read_member(site.pack, index, "lib/acme_mod.py") == b"X = 1\n"
    with pytest.raises(OSError, match="digest"):
        read_member(site.pack, index, "lib/acme_pkg/table.bin")
