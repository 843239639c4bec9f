"""Packs: their contents, their compression, and what the loader of a real interpreter uses."""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.share.gc import collect_garbage
from reconciler.share.hot import Need, pack_path
from reconciler.share.loader.groundcrew_packs import Spoiled, read_block
from reconciler.share.packs import Pack, held, read_head, read_member
from reconciler.share.share import BaseName
from tests.harness.packed_share import BIG, FILES, HOT, HUGE, LIBRARY, OTHER, TABLES, WHERE, Site
from tests.harness.shares import DIGEST, INTERPRETERS, RUNTIME, A, B, abi_of

SMALL = {"lib/acme_mod.py": b"X = 1\n" * 100, "lib/acme_pkg/__init__.py": b""}


def _small(site: Site) -> Path:
    """Return the pack of build B, which is small; the pointer names that build."""
    site.add(B, OTHER, SMALL)
    site.share.put_packs(B, {OTHER: SMALL.keys()})
    site.share.point("dev", BaseName(RUNTIME, abi_of(site.python), "3.3.2"), B, ["scheduler"])
    return pack_path(site.share.entry(OTHER), site.share.packs(B)[OTHER].sha256)


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda p: "-".join(Path(p).parts[-4:-2]))
def test_a_small_pack_is_packed_by_xz(python: str, tmp_path: Path) -> None:
    """It is smaller, readable by every interpreter, and ignored by earlier loaders."""
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
    """It waits for nobody, and removes neither packs nor notes of other processes."""
    site.run(WHERE)
    (note,) = site.local.glob("*/*/.build-*")
    unpacked = site.data()
    _small(site)
    module = site.loader / "groundcrew_local.py"
    module.write_text(module.read_text() + "\nsys.modules['_lzma'] = None\n")
    with (note.parent / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process is unpacking
        limit = str(site.share.packs(A)[DIGEST].bytes)
        at = site.run(WHERE, GROUNDCREW_LOCAL_LIMIT=limit)
    assert at.startswith(str(site.share.root))
    assert site.said == ""
    assert (note.is_file(), site.data()) == (True, unpacked)
    module.unlink()
    assert site.run(WHERE) == at, "that is noted: a further process asks nothing"
    assert site.said == ""


def test_a_daemon_without_xz_makes_packs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small packs are then compressed with zlib, too."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert _small(site).read_bytes()[:8] == b"GCPACK1\n"
    assert site.run(WHERE).startswith(str(site.local)), site.said


def test_a_large_file_is_local_and_lies_on_the_share_once(site: Site) -> None:
    """The pack names it but has nothing of it; the unpacked file is the same to the last byte."""
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
    """A changed byte, a missing end or no file is reported, and the share is used."""
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
    """Builds of earlier releases are, and all builds if GROUNDCREW_LOCAL is off."""
    assert site.run(WHERE, GROUNDCREW_LOCAL="off").startswith(str(site.share.root))
    assert not site.local.exists()
    (site.share.build_path(A) / "hot.json").unlink()
    assert site.run(WHERE).startswith(str(site.share.root))
    assert not site.local.exists()


@pytest.mark.parametrize("named_by", ["hot.json", "build.json"])
def test_a_build_is_loaded_from_whole_packs_until_it_has_hot_ones(
    named_by: str, site: Site
) -> None:
    """Nothing is recorded about these, as they will go; earlier releases name them elsewhere."""
    staged = site.root / "staged"
    for name, data in SMALL.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(data)
    whole = site.share.put_whole(OTHER, staged, {}).whole
    assert whole is not None
    path = site.share.entry(OTHER).relative_to(site.share.root)
    document: dict[str, object] = {
        "schema": 1,
        "build": B,
        "entries": [OTHER],
        "abi": abi_of(site.python),
        "paths": [{"path": f"{path}/lib", "pth": False}],
    }
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
    """Listed folders and folders beside a module of that name are local; others are links."""
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


@pytest.mark.parametrize("method", ["zlib", "xz", ""])
def test_a_block_that_is_not_as_large_as_its_parts_is_spoiled(method: str, tmp_path: Path) -> None:
    """A file would be cut short, or would contain bytes of another one."""
    methods: dict[str, Callable[[bytes], bytes]] = {
        "zlib": zlib.compress,
        "xz": lzma.compress,
        "": bytes,
    }
    pack = methods[method](b"three")
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


# -------------------------------------------------------------------------------- on the share


def _files(site: Site, pack: Pack) -> set[str]:
    """Return the files that a pack of the entry contains."""
    paths = held(read_head(pack_path(site.share.entry(DIGEST), pack.sha256))[1])
    return {path for path in paths if not path.endswith("/")}


@pytest.mark.parametrize("method", ["zlib", "xz"])
def test_a_block_that_cannot_be_decompressed_is_spoiled(method: str, tmp_path: Path) -> None:
    """The digest is correct: whoever wrote the pack wrote something else than its method."""
    data, path = b"neither", tmp_path / "block"
    path.write_bytes(data)
    block = {
        "packed": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "zlib": method == "zlib",
        "xz": method == "xz",
        "parts": [["acme.py", 0, 7, 0o644]],
    }
    with path.open("rb") as file, pytest.raises(Spoiled, match="cannot be decompressed"):
        read_block(file.fileno(), block, 0)


def test_a_pack_that_will_do_is_used_again(site: Site) -> None:
    """A pack is made again for files that it lacks, but not to drop some files of a small one."""
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
    """A report that a team's code made adds nothing to a pack that is not in the entry."""
    (tmp_path / "secret").write_text("s3cret")
    told = {"lib/acme_mod.py", "../../../../secret", str(tmp_path / "secret"), "entry.json", "lib"}
    site.add(B, DIGEST, FILES)
    site.share.put_packs(B, {DIGEST: told, "../../x": {"y"}})
    assert list(site.share.packs(B)) == [DIGEST]
    pack = site.share.packs(B)[DIGEST]
    assert _files(site, pack) == {"lib/acme_mod.py", "lib/acme-1.0.dist-info/METADATA"}


def test_packs_go_with_the_last_build_that_names_them(site: Site) -> None:
    """A pack that no build names is removed, also if its entry stays; others stay."""
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
    site.share.point("dev", BaseName(RUNTIME, "x", "3.3.2"), None, [])
    assert set(collect(dry_run=False)) == {kept.name, DIGEST}


def test_one_file_of_a_pack_is_read_without_the_others(site: Site) -> None:
    """A file of several blocks, a tiny one, a missing one; a spoiled block is reported."""
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
