"""Documents that describe a build, grouping of wheels, and a job's log."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.builder import manifest
from reconciler.builder.build_job import BuildJob
from reconciler.builder.files import fetch_files
from reconciler.builder.manifest import Parts, build_id_of, build_json, sbom
from reconciler.builder.resolve.base_metadata import usable
from reconciler.builder.resolve.choice import Wheel
from reconciler.builder.resolve.placeholders import stand_ins
from reconciler.builder.verify.dag_errors import last_line, line_in
from reconciler.builder.wheels import overlap
from reconciler.core.definitions import Checks, FileItem, Place, Recipe, SourcePackage
from reconciler.core.errors import Cancelled, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Distribution, Runtime
from reconciler.settings import BuilderSettings
from reconciler.share.share import Share

RUNTIME = Runtime(
    "key",
    "/python",
    "3.11.7",
    "cp311",
    "linux_x86_64",
    "3.3.2",
    ("py3-none-any",),
    (Distribution("acme-core", "2.0+corp"), Distribution("odd", "dirty")),
)


@pytest.fixture
def job(tmp_path: Path) -> BuildJob:
    return BuildJob("k", "one", "red", "r", tmp_path / "logs" / "log", threading.Event())


def entry(root: Path, digest: str, *files: str, text: str = "") -> Path:
    """Return a store entry with these files in lib/."""
    for name in files:
        path = root / digest / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / digest


# ------------------------------------------------------------------------------------- overlap


def test_wheels_of_their_own_stay_apart(tmp_path: Path) -> None:
    """Each has its own directory, in the lock's order; metadata does not count as an overlap."""
    entries = {
        "a": entry(tmp_path, "a", "a/__init__.py", "a-1.dist-info/METADATA"),
        "b": entry(tmp_path, "b", "b.py", "__pycache__/b.pyc"),
    }
    assert overlap.groups({k: overlap.tops(v / "lib") for k, v in entries.items()}) == [
        ("a",),
        ("b",),
    ]


def test_wheels_that_fill_one_regular_package_belong_together(tmp_path: Path) -> None:
    """It is enough if one of them has the __init__; other wheels may be between them."""
    entries = {
        "a": entry(tmp_path, "a", "family/one.py"),
        "b": entry(tmp_path, "b", "b.py"),
        "c": entry(tmp_path, "c", "family/__init__.py"),
        "d": entry(tmp_path, "d", "b.py", "d/__init__.py"),
    }
    assert overlap.groups({k: overlap.tops(v / "lib") for k, v in entries.items()}) == [
        ("a", "c"),
        ("b", "d"),
    ]


def test_belonging_together_is_passed_on(tmp_path: Path) -> None:
    """If a shares with b and b with c, all three are in one directory."""
    entries = {
        "a": entry(tmp_path, "a", "x.py"),
        "b": entry(tmp_path, "b", "x.py", "y.py"),
        "c": entry(tmp_path, "c", "y.py"),
    }
    assert overlap.groups({k: overlap.tops(v / "lib") for k, v in entries.items()}) == [
        ("a", "b", "c")
    ]


@pytest.mark.parametrize("text", ["", "__path__ = __import__('pkgutil').extend_path(x, y)\n"])
def test_namespace_packages_may_be_split(tmp_path: Path, text: str) -> None:
    """Without an __init__, or with one that searches the whole path, nothing is hidden."""
    init = ("space/__init__.py",) if text else ()
    entries = {
        "a": entry(tmp_path, "a", "space/one.py", *init, text=text),
        "b": entry(tmp_path, "b", "space/two.py", *init, text=text),
    }
    assert overlap.groups({k: overlap.tops(v / "lib") for k, v in entries.items()}) == [
        ("a",),
        ("b",),
    ]


def test_the_later_wheel_wins_where_both_have_a_file(tmp_path: Path) -> None:
    """An installer would do the same; the digest depends on the order."""
    entries = {
        "a": entry(tmp_path, "a", "x.py", "only.py", text="a"),
        "b": entry(tmp_path, "b", "x.py", text="b"),
    }
    overlap.merge(list(entries.values()), tmp_path / "merged")
    assert (tmp_path / "merged/lib/x.py").read_text() == "b"
    assert (tmp_path / "merged/lib/only.py").read_text() == "a"
    assert overlap.merged_digest(("a", "b")) != overlap.merged_digest(("b", "a"))


# ------------------------------------------------------------------------------------ manifest


def test_build_json_is_relative_to_the_share(tmp_path: Path, job: BuildJob) -> None:
    """Another machine may mount the share elsewhere: no path contains this machine's."""
    share = Share(tmp_path)
    first, files = "a" * 64, "b" * 64
    lib = share.entry(first) / "lib"
    lib.mkdir(parents=True)
    (lib / "x.pth").write_text("")
    (share.entry(first) / "bin").mkdir()
    wheel = Wheel("alpha", "1.0", "alpha-1.0-py3-none-any.whl", "c" * 64)
    document = build_json(
        "0" * 16,
        Recipe("d", env=(("A", "b"),)),
        RUNTIME,
        job,
        [wheel],
        {first: overlap.Facts.of(share.entry(first))},
        Parts(files, ("jars/x.jar",), has_bin=True),
        share,
    )
    assert str(tmp_path) not in json.dumps(document)
    assert document["paths"] == [{"path": f"store/sha256/aa/{first}/lib", "pth": True}]
    assert document["bin"] == [
        f"store/sha256/aa/{first}/bin",
        f"store/sha256/bb/{files}/files/bin",
    ]
    assert document["jars"] == [f"store/sha256/bb/{files}/files/jars/x.jar"]
    assert document["entries"] == [first, files]
    assert (document["environment"], document["team"]) == ("one", "red")
    assert document["abi"] == "cp311-linux_x86_64"


def test_an_sbom_is_the_same_every_time() -> None:
    """It contains neither a time nor a random number; every package has its hash."""
    wheels = [Wheel(n, "1.0", "x.whl", "c" * 64) for n in ("alpha", "beta")]
    first = sbom("0" * 16, wheels)
    assert first == sbom("0" * 16, wheels)
    document = json.loads(first)
    assert [c["name"] for c in document["components"]] == ["alpha", "beta"]
    assert document["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]


@pytest.mark.parametrize("names", [[], ["b"], ["b", "a"], ["a-b", "a", "zeta", "a_b", "build"]])
def test_an_sbom_made_of_parts_is_what_the_library_makes_at_once(names: list[str]) -> None:
    """The same components and dependencies, in the same order."""
    wheels = [Wheel(n, f"1.{i}", "x.whl", f"{i:064x}") for i, n in enumerate(names)]
    whole = manifest._rendered("0" * 16, [(w.name, w.version, w.sha256) for w in wheels])
    assert json.loads(sbom("0" * 16, wheels)) == whole


def test_a_build_id_changes_with_all_that_a_build_consists_of() -> None:
    """Lock, trees, built wheels, files, variables, checks and runtime each change the build."""
    recipe = Recipe("d")
    package = SourcePackage("p", "teams/red/p", "tree", Place("f"))
    others = [
        replace(recipe, packages=(package,)),
        replace(recipe, packages=(replace(package, tree="other"),)),
        replace(recipe, files=(FileItem("0" * 64, url="https://x", path="bin/x"),)),
        replace(recipe, env=(("A", "b"),)),
        replace(recipe, checks=Checks(imports=("x",))),
    ]
    ids = [build_id_of("lock", r, RUNTIME) for r in (recipe, *others)]
    ids.append(build_id_of("other lock", recipe, RUNTIME))
    ids.append(build_id_of("lock", recipe, replace(RUNTIME, key="other")))
    ids += [build_id_of("lock", recipe, RUNTIME, [("p", digit * 64)]) for digit in "01"]
    assert len(set(ids)) == len(ids)
    assert build_id_of("lock", replace(recipe, digest="e"), RUNTIME) == ids[0]


# ----------------------------------------------------------------------------------- stand-ins


def test_the_base_has_stand_ins_of_its_versions(tmp_path: Path) -> None:
    """There is one wheel for each readable version, including local ones, created once."""
    folder = stand_ins(RUNTIME, tmp_path)
    (wheel,) = folder.iterdir()
    assert wheel.name == "acme_core-2.0+corp-py3-none-any.whl"
    assert zipfile.is_zipfile(wheel)
    before = wheel.stat().st_mtime_ns
    assert stand_ins(RUNTIME, tmp_path) == folder
    assert wheel.stat().st_mtime_ns == before
    assert [d.name for d in usable(RUNTIME)] == ["acme-core"]


# ----------------------------------------------------------------------------- logs and messages


def test_a_log_has_no_secrets_and_no_colours(job: BuildJob) -> None:
    """Known secrets and credentials in addresses are masked when they are written."""
    job.secrets.add("pass-word")
    job.say("\x1b[31mred\x1b[0m pass-word https://user:other@host/simple/")
    assert job.log.read_text() == "red *** https://***@host/simple/\n"


def test_a_log_has_an_end(job: BuildJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that prints without end does not fill the disk."""
    monkeypatch.setattr("reconciler.builder.build_job.LOG_LIMIT", 100)
    for _ in range(100):
        job.say("x" * 49)
    assert job.log.stat().st_size == 100


def test_a_log_that_cannot_be_written_stops_nothing(job: BuildJob) -> None:
    """A build fails because of its own work, not because of its log."""
    job.log.parent.parent.joinpath("logs").write_text("a file where the folder should be")
    job.say("lost")


def test_a_cancelled_job_says_so(job: BuildJob) -> None:
    """Between its steps a job checks whether it was cancelled."""
    job.check()
    job.cancelled.set()
    with pytest.raises(Cancelled):
        job.check()


def test_a_stack_trace_is_read_for_its_line_and_words() -> None:
    """The innermost frame in the file, and the last line that is not empty."""
    trace = (
        'File "/x/check0_smoke.py", line 3, in <module>\n  f()\n'
        'File "/x/check0_smoke.py", line 9, in f\n  1/0\n'
        'File "/y/other.py", line 5\nZeroDivisionError: by zero\n\n'
    )
    assert line_in(trace, "check0_smoke.py") == 9
    assert line_in(trace, "nothing.py") == 0
    assert last_line(trace) == "ZeroDivisionError: by zero"
    assert last_line("  \n") == "unknown"


# ----------------------------------------------------------------------------------------- files


def placing(
    job: BuildJob, tmp_path: Path, *paths: str, mode: int = 0o644, data: bytes = b"x", url: str = ""
) -> None:
    """Publish one file that was fetched before at each of the paths."""
    (tmp_path / "cache" / "files").mkdir(parents=True)
    (tmp_path / "cache" / "files" / "0").write_bytes(data)
    (tmp_path / "share").mkdir()
    share = Share(tmp_path / "share")
    share.prepare()
    items = tuple(FileItem("0", url=url or "https://h/x", path=path, mode=mode) for path in paths)
    fetch_files(
        job,
        Recipe("", files=items),
        BuilderSettings(),
        share,
        tmp_path / "cache",
        tmp_path / "work",
    )


@pytest.mark.parametrize("path", ["OUTSIDE", "../../outside", "a/../../../outside"])
def test_a_file_is_written_nowhere_but_in_its_entry(
    job: BuildJob, tmp_path: Path, path: str
) -> None:
    """Whatever path a record contains, nothing is written outside the build's files."""
    outside = tmp_path / "outside"
    with pytest.raises(Stalled) as caught:
        placing(job, tmp_path, path.replace("OUTSIDE", str(outside)))
    assert caught.value.reason == Reason.NOT_ALLOWED
    assert not outside.exists()


def test_a_file_without_any_permission_is_placed(job: BuildJob, tmp_path: Path) -> None:
    """The share sets its own permissions: a mode of 0000 is not a disk error."""
    placing(job, tmp_path, "data/x", mode=0)
    assert (tmp_path / "work" / "files-entry" / "files" / "data" / "x").stat().st_mode & 0o400


def test_a_program_can_be_started_whatever_its_mode(job: BuildJob, tmp_path: Path) -> None:
    """The share sets its own modes, which also do not matter."""
    placing(job, tmp_path, "bin/x", "data/x", mode=0o600)
    (entry,) = (tmp_path / "share").glob("store/sha256/*/*/entry.json")
    assert os.access(entry.parent / "files/bin/x", os.X_OK)
    assert (entry.parent / "files/data/x").stat().st_mode & 0o111 == 0


def _tar(kind: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=kind) as archive:
        archive.addfile(tarfile.TarInfo("tool"))
    return packed.getvalue()


def words_of(value: object) -> str:
    """Return a parameter's name; archives contain the time, but test ids must be stable."""
    return value if isinstance(value, str) else "data"


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("tool", "x")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("url", "data", "words"),
    [
        ("tool.tar.gz", gzip.compress(_tar(tarfile.PAX_FORMAT)), "tar archive"),
        ("tool.tgz", gzip.compress(_tar(tarfile.GNU_FORMAT)), "packed by gzip"),
        ("tool.tar", _tar(tarfile.USTAR_FORMAT), "tar archive"),
        ("tool.zip", _zip(), "zip archive"),
        ("tool.tar.xz", lzma.compress(b"x"), "packed by xz"),
        ("tool.bz2", bz2.compress(b"x"), "packed by bzip2"),
        ("get?id=7", gzip.compress(b"x"), "packed by gzip"),
    ],
    ids=words_of,
)
def test_an_archive_is_no_program(
    job: BuildJob, tmp_path: Path, url: str, data: bytes, words: str
) -> None:
    """It would fail when the first task starts it; as any other file it is kept unchanged."""
    with pytest.raises(Stalled, match=words) as caught:
        placing(job, tmp_path, "bin/tool", data=data, url=f"https://h/{url}")
    assert caught.value.reason == Reason.NOT_A_PROGRAM
    assert url in caught.value.message
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    placing(job, tmp_path, "data/tool.zip", data=data, url=f"https://h/{url}")


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("bin/tool", gzip.compress(b"#!/bin/sh\n")),  # of tool.gz: one program
        ("bin/tool.jar", gzip.compress(_zip())),
        ("bin/tool", gzip.compress(b"#!/usr/bin/env python3\n" + _zip())),  # zipapp
    ],
    ids=words_of,
)
def test_what_is_a_program_is_taken(job: BuildJob, tmp_path: Path, path: str, data: bytes) -> None:
    """A compressed single program is decompressed; a program that is also an archive stays."""
    placing(job, tmp_path, path, data=data, url="https://h/tool.gz")
    (entry,) = (tmp_path / "share").glob("store/sha256/*/*/entry.json")
    assert (entry.parent / "files" / path).read_bytes() == gzip.decompress(data)
