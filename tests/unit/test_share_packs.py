"""Heads of packs written by something else: an error of the share, whatever they contain."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from reconciler.share.loader.groundcrew_packs import MAGIC
from reconciler.share.packs import files_of, read_head, unpack, write_pack

SOUND: dict[str, object] = {
    "folders": ["lib"],
    "cold": [],
    "facts": {},
    "blocks": [{"packed": 1, "sha256": "0" * 64, "zlib": False, "parts": [["lib/a", 0, 1, 420]]}],
}


def part(*values: object) -> dict[str, object]:
    block = {"packed": 1, "sha256": "0" * 64, "zlib": False, "parts": [list(values)]}
    return {**SOUND, "blocks": [block]}


FOREIGN: list[Any] = [
    [],
    None,
    1,
    "x",
    {},
    {"blocks": 1},
    {**SOUND, "blocks": [1]},
    {**SOUND, "blocks": [{}]},
    {**SOUND, "folders": [1]},
    {**SOUND, "folders": ["../x"]},
    {**SOUND, "folders": ["/x"]},
    {**SOUND, "facts": []},
    part("lib/a", 0, 1),
    part("lib/a", "0", 1, 420),
    part(1, 0, 1, 420),
    part("../a", 0, 1, 420),
    part("/a", 0, 1, 420),
    part("lib/../../a", 0, 1, 420),
    part("lib/a", -1, 1, 420),
    part("lib/a", 0, 1 << 70, 420),
    part("lib/a", 0, 1, 0o104755),
]


def pack(path: Path, index: bytes) -> Path:
    path.write_bytes(MAGIC + len(index).to_bytes(4, "little") + index)
    return path


@pytest.mark.parametrize("index", FOREIGN, ids=lambda index: json.dumps(index)[:60])
def test_a_foreign_index_is_a_broken_pack(index: object, tmp_path: Path) -> None:
    """The reader and the unpacking code refuse it; nothing is written."""
    path = pack(tmp_path / "x.all", zlib.compress(json.dumps(index).encode()))
    with pytest.raises(OSError, match="a broken pack"):
        read_head(path)
    with pytest.raises(OSError, match="a broken pack"):
        unpack(path, tmp_path / "to" / "entry")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.all"]


@pytest.mark.parametrize(
    "index",
    [b"", b"x", zlib.compress(b"["), zlib.compress(b"[" * 100_000), zlib.compress(b"\xff")],
    ids=["empty", "unpacked", "cut", "deep", "binary"],
)
def test_an_index_that_is_none_is_a_broken_pack(index: bytes, tmp_path: Path) -> None:
    """Every kind of damage is detected."""
    with pytest.raises(OSError, match="a broken pack"):
        read_head(pack(tmp_path / "x.all", index))


def test_a_pack_of_ours_is_read(tmp_path: Path) -> None:
    """Our own packs match the model."""
    source = tmp_path / "source"
    (source / "lib").mkdir(parents=True)
    (source / "lib" / "a.py").write_text("x = 1\n")
    files = files_of(source)
    written = write_pack(source, files, None, tmp_path / "x.all", {"tops": {"a.py": "file"}})
    loaded, index = read_head(tmp_path / "x.all")
    assert loaded.sha256 == written.sha256
    assert index["facts"] == {"tops": {"a.py": "file"}}
