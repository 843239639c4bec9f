"""Wheels: the choice of the best one, refused ones, and the names of their entries."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.builder.local_disk import disk_error
from reconciler.builder.resolve.choice import choose, locked
from reconciler.builder.resolve.pylock import Hashes, LockedFile, LockedPackage
from reconciler.builder.wheels import contents
from reconciler.builder.wheels.contents import refuse_unsafe, unpack
from reconciler.builder.wheels.download import entry_digest
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from tests.harness.wheels import make_wheel

TAGS = ("cp311-cp311-manylinux_2_17_x86_64", "cp311-abi3-linux_x86_64", "py3-none-any")


def files(*names: str) -> list[LockedFile]:
    """Return locked files with these names."""
    hashes = Hashes(sha256="0" * 64)
    return [LockedFile(url=f"https://x/{name}", hashes=hashes) for name in names]


def rewrite(wheel: Path, members: Mapping[str, str | None]) -> None:
    """Replace members of a wheel; None removes one."""
    with zipfile.ZipFile(wheel) as archive:
        originals = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in originals.items():
            if name not in members:
                archive.writestr(name, data)
        for name, text in members.items():
            if text is not None:
                archive.writestr(name, text)


def test_the_best_wheel_that_fits_is_chosen() -> None:
    """The interpreter's own order of tags decides, not the order of the lock."""
    chosen = choose(
        files(
            "a-1-py3-none-any.whl",
            "a-1-cp312-cp312-manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        ),
        TAGS,
    )
    assert chosen is not None
    assert chosen.filename.startswith("a-1-cp311-cp311-")


def test_no_wheel_fits_another_platform() -> None:
    """Foreign wheels and names that are not wheels are skipped."""
    assert choose(files("a-1-cp311-cp311-win_amd64.whl", "a-1.tar.gz", "x.whl"), TAGS) is None


def test_an_entry_is_named_by_wheel_and_python() -> None:
    """The bytecode differs by Python, so the entry does too."""
    names = {entry_digest(sha, tag) for sha in ("a", "b") for tag in ("cp311", "cp312")}
    assert len(names) == 4


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "\\x", "a\\..\\x", "C:x", "..", "a/.."],
)
def test_members_outside_are_refused(tmp_path: Path, name: str) -> None:
    """No name may leave the folder, in any system's path syntax."""
    path = tmp_path / "a-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = name
        archive.writestr(info, "")
    with pytest.raises(Stalled, match="outside of it") as caught:
        refuse_unsafe(path)
    assert caught.value.reason == Reason.UNSAFE_WHEEL


def test_symlinks_are_refused(tmp_path: Path) -> None:
    """A link could point anywhere once it is on the share."""
    with pytest.raises(Stalled, match="symlink"):
        refuse_unsafe(make_wheel(tmp_path, "a", links={"a/link": "/etc/passwd"}))


def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and counts are taken from the directory of the zip file."""
    wheel = make_wheel(tmp_path, "a", files={"a.py": "#" * 5000})
    monkeypatch.setattr(contents, "UNPACKED_LIMIT", 4000)
    with pytest.raises(Stalled, match="more than is allowed"):
        refuse_unsafe(wheel)
    monkeypatch.undo()
    monkeypatch.setattr(contents, "FILES_LIMIT", 2)
    with pytest.raises(Stalled, match="more than is allowed"):
        refuse_unsafe(wheel)


def test_a_size_that_is_a_lie_is_found(tmp_path: Path) -> None:
    """A member that decompresses to more than its header says is refused."""
    wheel = make_wheel(tmp_path, "a", files={"a.py": "#" * 5000})
    data = wheel.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    wheel.write_bytes(data)
    with pytest.raises(Stalled) as caught:
        unpack(wheel, "a", tmp_path / "staged", lambda _: None)
    assert caught.value.reason == Reason.INVALID_WHEEL


def test_what_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    """An HTML page with a wheel's name is reported as such."""
    path = tmp_path / "a-1.0-py3-none-any.whl"
    path.write_text("<html>")
    with pytest.raises(Stalled, match="not a zip file"):
        refuse_unsafe(path)


@pytest.mark.parametrize("member", ["a/unlisted.py", "a-1.0.data/scripts/unlisted"])
def test_a_file_that_the_record_does_not_list_is_installed(tmp_path: Path, member: str) -> None:
    """As with pip and uv it is installed; it is also reported and listed."""
    wheel, told = make_wheel(tmp_path, "a"), list[str]()
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(member, "x = 1\n")
    unpack(wheel, "a", tmp_path / "staged", told.append)
    assert any(member in line and line.startswith("warning: ") for line in told)
    name = member.rpartition("/")[2]
    assert name in (tmp_path / "staged/lib/a-1.0.dist-info/RECORD").read_text()


@pytest.mark.parametrize("line", ["{info}/METADATA,sha256=AAAA,1", "{info}/METADATA,md5=,x", '"'])
def test_a_wrong_line_in_the_record_is_a_warning(tmp_path: Path, line: str) -> None:
    """The wheel is the one that was locked; the RECORD that is installed is correct."""
    wheel, told, info = make_wheel(tmp_path, "a"), list[str](), "a-1.0.dist-info"
    rewrite(wheel, {f"{info}/RECORD": f"a.py,,\n{line.format(info=info)}\n"})
    unpack(wheel, "a", tmp_path / "staged", told.append)
    assert told
    metadata = (tmp_path / "staged/lib" / info / "METADATA").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(metadata).digest()).decode().rstrip("=")
    assert digest in (tmp_path / "staged/lib" / info / "RECORD").read_text()


def test_a_wheel_without_a_record_is_refused(tmp_path: Path) -> None:
    """It is not a wheel."""
    wheel = make_wheel(tmp_path, "a")
    rewrite(wheel, {"a-1.0.dist-info/RECORD": None})
    with pytest.raises(Stalled, match="has no RECORD"):
        unpack(wheel, "a", tmp_path / "staged", lambda _: None)


@pytest.mark.parametrize(
    "members",
    [
        ("a.py",),  # like a member that exists already
        ("a-1.0.data/purelib/a.py",),  # the same place by another path
        ("b", "b/c.py"),  # a file and a folder
        ("x" * 256 + ".py",),
        ("ü" * 128 + ".py",),  # bytes count, not characters
        ("/".join(["d" * 200] * 30),),
        ("line\nbreak.py",),
    ],
)
def test_names_that_no_disk_takes_are_the_wheels_fault(
    tmp_path: Path, members: tuple[str, ...]
) -> None:
    """A person must learn that the wheel is invalid: the disk is fine, and a retry is useless."""
    wheel = make_wheel(tmp_path, "a")
    with warnings.catch_warnings(), zipfile.ZipFile(wheel, "a") as archive:
        warnings.simplefilter("ignore")
        for member in members:
            archive.writestr(member, "x = 1\n")
    with pytest.raises(Stalled, match=re.escape(wheel.name)) as caught:
        unpack(wheel, "a", tmp_path / "staged", lambda _: None)
    assert caught.value.reason == Reason.INVALID_WHEEL
    assert "disk" not in caught.value.message


def test_members_that_cannot_be_unpacked_in_bounds_are_refused(tmp_path: Path) -> None:
    """A few bytes of bzip2 decompress to any size at once."""
    wheel = make_wheel(tmp_path, "a")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("bomb", bytes(1 << 20), zipfile.ZIP_BZIP2)
    with pytest.raises(Stalled, match="use deflate") as caught:
        refuse_unsafe(wheel)
    assert caught.value.reason == Reason.UNSAFE_WHEEL


@pytest.mark.parametrize(
    "name",
    [
        "a-1-1/../../../../etc/x-py3-none-any.whl",
        "a-1-1\\..\\x-py3-none-any.whl",
        "a-1-1" + "x" * 300 + "-py3-none-any.whl",
    ],
)
def test_a_file_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """The name becomes a path in the cache: a build tag may contain almost anything."""
    package = {
        "name": "a",
        "version": "1",
        "wheels": [{"name": name, "url": "https://x/a", "hashes": {"sha256": "0" * 64}}],
    }
    with pytest.raises(Stalled, match="plain file name") as caught:
        locked(LockedPackage.model_validate(package), TAGS)
    assert caught.value.reason == Reason.UNSAFE_WHEEL


def test_another_packages_wheel_is_refused(tmp_path: Path) -> None:
    """An index cannot serve one package under another's name."""
    with pytest.raises(Stalled, match="is not a wheel of b"):
        unpack(make_wheel(tmp_path, "a"), "b", tmp_path / "staged", lambda _: None)


def test_modules_scripts_and_metadata_have_their_places(tmp_path: Path) -> None:
    """Modules and metadata are in lib, programs in bin."""
    points = "[console_scripts]\nacme = a:main\n"
    wheel = make_wheel(
        tmp_path, "a", files={"a.py": "", "a-1.0.dist-info/entry_points.txt": points}
    )
    staged = tmp_path / "staged"
    unpack(wheel, "a", staged, lambda _: None)
    assert (staged / "lib" / "a.py").is_file()
    assert (staged / "lib/a-1.0.dist-info/INSTALLER").read_text() == "groundcrew\n"
    assert (staged / "bin" / "acme").stat().st_mode & 0o111


@pytest.mark.parametrize("program", ["acme", "tool"])
def test_programs_run_with_the_interpreter_of_who_starts_them(program: str, tmp_path: Path) -> None:
    """An entry point and a script of the wheel's own, for two interpreters and for neither."""
    wheel = make_wheel(
        tmp_path,
        "a",
        files={
            "a.py": "import sys\ndef main(): print(sys.executable, *sys.argv[1:])\n",
            "a-1.0.dist-info/entry_points.txt": "[console_scripts]\nacme = a:main\n",
            "a-1.0.data/scripts/tool": "#!python\nimport a\na.main()\n",
        },
    )
    staged = tmp_path / "staged"
    unpack(wheel, "a", staged, lambda _: None)
    record = (staged / "lib/a-1.0.dist-info/RECORD").read_text()
    digest = hashlib.sha256((staged / "bin" / program).read_bytes()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") in record
    for name in ("one", "the other", "bin/python3"):
        python = tmp_path / name
        python.parent.mkdir(exist_ok=True)
        python.symlink_to(sys.executable)
        env = {"PYTHONPATH": str(staged / "lib"), "PATH": f"{tmp_path / 'bin'}:{os.defpath}"}
        if name != "bin/python3":
            env["GROUNDCREW_PYTHON"] = str(python)
        done = subprocess.run(
            [staged / "bin" / program, "x y", "z"],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{python} x y z\n"


def test_a_full_disk_is_told_from_a_broken_one() -> None:
    """Both are retried; only one is solved by freeing space."""
    full, broken = disk_error(OSError(28, "No space left")), disk_error(OSError(5, "I/O error"))
    assert (full.reason, broken.reason) == (Reason.DISK_FULL, Reason.DISK_ERROR)
    assert isinstance(full, Retryable)
    assert isinstance(broken, Retryable)
