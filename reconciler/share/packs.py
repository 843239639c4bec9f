r"""Packs: files of one store entry in one file, so that a pod reads them in a few large pieces.

  "GCPACK1\n", the length of the index (4 bytes, little-endian), the index, the blocks

The index is JSON, compressed by zlib: `folders` (to be created), `blocks` (each with its `packed`
size in bytes, its `sha256` and whether it is compressed by `zlib` or by `xz`; its `parts` are
[path, offset in the file, bytes, mode]), and `cold`: paths that the pack does not contain and that
stay on the share. A block that is `apart` is not in the pack: it is its only part, stored in the
entry's own file. If a block is compressed by xz, the pack begins with GCPACK2. A pack is named by
the SHA-256 of everything before the blocks, which includes the SHA-256 of each block. The loader's
groundcrew_packs reads packs; this module writes them.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import stat
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, Field

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Document, Rows, parse
from reconciler.share.atomic import make_directory, sync_directory
from reconciler.share.loader import groundcrew_packs

BLOCK = 2 << 20  # bytes of a block before compression
PIECE = 1 << 20  # bytes per write: as many as a share accepts at once
WINDOW = 4  # blocks that are prepared ahead
READERS = 16  # files read at once, as a share handles them in parallel
LEVEL = 6
UNPACKED_INDEX_LIMIT = 64 << 20  # bytes
SMALL = 512 << 10  # bytes up to which all of a pack is compressed by xz: see ADR 18
APART = 1 << 20  # bytes from which a hot file is read from its own file: see ADR 18


@dataclass(frozen=True, slots=True)
class Pack:
    """Pack that was written: its SHA-256, the bytes of its files, and whether it uses xz."""

    sha256: str
    bytes: int
    xz: bool = False


def _inside(path: str) -> str:
    """Return a path. Raises ValueError if it leads out of the entry."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ValueError("a path leads out of the entry")
    return path


_Path = Annotated[str, AfterValidator(_inside)]
_Bytes = Annotated[int, Field(ge=0, lt=1 << 53)]


class _BlockRow(Document):
    """Block in the index of a pack."""

    packed: _Bytes
    sha256: str
    zlib: bool
    xz: bool = False
    apart: bool = False
    parts: Rows[tuple[_Path, _Bytes, _Bytes, Annotated[int, Field(ge=0, le=0o7777)]]]


class _Index(Document):
    """Index of a pack, which another program may have written."""

    folders: Rows[_Path]
    cold: Rows[_Path]
    blocks: Rows[_BlockRow]
    facts: dict[str, Any] = Field(default_factory=dict)


@dataclass(slots=True)
class _Block:
    """Parts of files that are compressed together."""

    parts: list[tuple[str, int, int, int]] = field(default_factory=list)
    size: int = 0
    apart: bool = False


def write_pack(
    source: Path,
    files: Mapping[str, tuple[int, int]],
    hot: AbstractSet[str] | None,
    target: Path,
    facts: Mapping[str, object] | None = None,
) -> Pack:
    """Write a pack of a folder's files (see `files_of`) to a new file, durably.

    `hot` are the paths to include, if they exist, and folders to create although their contents are
    not hot (with a / at the end); None means all files, none of them apart, and no compression.
    `facts` are stored in the index. Raises OSError.
    """
    chosen = sorted(files if hot is None else hot & files.keys())
    made = {str(PurePosixPath(path)) for path in hot or () if path.endswith("/")}
    whole = hot is None
    blocks = list(_blocks([(path, *files[path]) for path in chosen], APART if not whole else None))
    method = "" if whole else _method(sum(block.size for block in blocks if not block.apart))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryFile() as spool:  # local: the index comes first, but is known last
        for block, data in zip(blocks, _packed(source, blocks, method), strict=True):
            row = {"packed": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            row |= {"zlib": method == "zlib" and not block.apart, "parts": block.parts}
            if block.apart:
                row["apart"] = True
            elif method:
                row[method] = True
                spool.write(data)
            rows.append(row)
        index = {
            "folders": _folders(chosen, made),
            "cold": _cold(files, chosen, made),
            "blocks": rows,
            "facts": facts or {},
        }
        text = zlib.compress(json.dumps(index, separators=(",", ":")).encode(), 9)
        magic = groundcrew_packs.MAGIC_XZ if method == "xz" else groundcrew_packs.MAGIC
        head = magic + len(text).to_bytes(4, "little") + text
        spool.seek(0)
        pieces = _packed(source, blocks, "") if whole else iter(lambda: spool.read(PIECE), b"")
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(handle, "wb", buffering=PIECE) as file:
            os.fchmod(handle, 0o644)
            file.write(head)
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(handle)
    size = sum(block.size for block in blocks)
    return Pack(hashlib.sha256(head).hexdigest(), size, xz=method == "xz")


def read_head(path: Path) -> tuple[Pack, dict[str, Any]]:
    """Return a pack as its head describes it, and its index. Raises OSError, also if invalid."""
    with path.open("rb") as file:
        head = file.read(12)
        size = int.from_bytes(head[8:12], "little")
        if head[:8] not in groundcrew_packs.MAGICS or size > groundcrew_packs.INDEX_LIMIT:
            raise OSError(errno.EIO, "no pack", path.name)
        text = file.read(size)
    try:
        unpacker = zlib.decompressobj()
        written = unpacker.decompress(text, UNPACKED_INDEX_LIMIT)
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("its index is cut short, too large, or followed by something else")
        parse(_Index, written, "the index")
        index = json.loads(written)
    except (ValueError, zlib.error) as error:
        raise OSError(errno.EIO, f"a broken pack: {str(error)[:200]}", path.name) from error
    size = sum(part[2] for block in index["blocks"] for part in block["parts"])
    xz = head[:8] == groundcrew_packs.MAGIC_XZ
    return Pack(hashlib.sha256(head + text).hexdigest(), size, xz), index


def read_member(path: Path, index: Mapping[str, Any], name: str) -> bytes:
    """Return one file of a pack whose index was read, or b"" if it is missing. Raises OSError."""
    content = b""
    with path.open("rb") as file:
        for block, offset in _stored(file, index):
            begin = 0
            for part, _, size, _ in block["parts"]:
                if part == name:
                    content += _checked(file, path, block, offset)[begin : begin + size]
                begin += size
    return content


def _stored(file: BinaryIO, index: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the blocks that are in the pack itself, with their offsets."""
    blocks = [block for block in index["blocks"] if not block.get("apart")]
    offset = file.seek(0, os.SEEK_END) - sum(block["packed"] for block in blocks)
    for block in blocks:
        yield block, offset
        offset += block["packed"]


def _checked(file: BinaryIO, path: Path, block: dict[str, Any], offset: int) -> bytes | memoryview:
    try:
        return groundcrew_packs.read_block(file.fileno(), block, offset)
    except groundcrew_packs.Spoiled as error:
        raise OSError(errno.EIO, str(error), path.name) from error


def unpack(path: Path, target: Path, writers: int = 4) -> tuple[int, int]:
    """Write the files in a pack to a folder, durably; return (files, bytes).

    Raises OSError.
    """
    pack, index = read_head(path)
    folders = [target / folder for folder in index["folders"]]
    for folder in folders:
        make_directory(folder)
    names = set()
    with path.open("rb") as file, ThreadPoolExecutor(writers) as pool:
        running: list[Future[None]] = []
        for block, offset in _stored(file, index):
            data = _checked(file, path, block, offset)
            begin = 0
            for name, at, size, mode in block["parts"]:
                names.add(name)
                part = data[begin : begin + size]
                running.append(pool.submit(_write_part, target / name, part, at, mode))
                begin += size
            while len(running) > WINDOW * writers:
                running.pop(0).result()
        for one in running:
            one.result()
    for folder in {target, *((target / name).parent for name in names)}:
        sync_directory(folder)
    return len(names), pack.bytes


def _write_part(path: Path, part: bytes | memoryview, at: int, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
    try:
        while part:
            done = os.pwrite(handle, part, at)
            part, at = part[done:], at + done
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def held(index: Mapping[str, Any]) -> frozenset[str]:
    """Return the files that a pack contains, and the folders that it creates, ending with a /."""
    files = {part[0] for block in index["blocks"] for part in block["parts"]}
    return frozenset(files | {f"{folder}/" for folder in _with_parents(index["folders"])})


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return (bytes, mode) of every file of an entry except entry.json, by its path in it.

    Symlinks are refused with Stalled("UnsafeEntry").
    """
    files = {}
    for here, names, leaves in os.walk(folder):
        below = os.path.relpath(here, folder)
        prefix = "" if below == "." else f"{below}/"
        for name in (*names, *leaves):
            seen = os.lstat(f"{here}/{name}")
            if stat.S_ISLNK(seen.st_mode):
                raise Stalled(
                    Reason.UNSAFE_ENTRY, f"{name} is a symlink; packages may not hold any"
                )
            if stat.S_ISREG(seen.st_mode):
                mode = 0o755 if seen.st_mode & stat.S_IXUSR else 0o644
                files[prefix + name] = (seen.st_size, mode)
    files.pop("entry.json", None)
    return files


def _blocks(files: Sequence[tuple[str, int, int]], apart: int | None) -> Iterator[_Block]:
    """Fill blocks with the files in their order; a large file is split.

    Files of at least `apart` bytes share no block with others.
    """
    block = _Block()
    for path, size, mode in files:
        if apart is not None and size >= apart:
            for at in range(0, size, BLOCK):
                part = min(size - at, BLOCK)
                yield _Block([(path, at, part, mode)], part, apart=True)
            continue
        at = 0
        while at < size or size == 0:
            part = min(size - at, BLOCK - block.size)
            block.parts.append((path, at, part, mode))
            block.size += part
            at += part
            if block.size >= BLOCK:
                yield block
                block = _Block()
            if size == 0:
                break
    if block.parts:
        yield block


def _method(size: int) -> str:
    """Return the compression for so many bytes: xz is smallest, zlib is fastest to decompress."""
    return "xz" if size <= SMALL and importlib.util.find_spec("_lzma") else "zlib"


def _compress(data: bytes, method: str) -> bytes:
    if method == "xz":
        import lzma

        return lzma.compress(data, check=lzma.CHECK_NONE)  # its SHA-256 is in the index
    return zlib.compress(data, LEVEL)


def _packed(source: Path, blocks: Sequence[_Block], method: str) -> Iterator[bytes]:
    """Yield the blocks' bytes in order: unchanged, or compressed a few blocks ahead.

    The files of a whole pack are on a local disk, where reading one after the other is fastest.
    """
    if not method:
        for block in blocks:
            yield b"".join([_read(source, *part[:3]) for part in block.parts])
        return

    def make(block: _Block) -> bytes:
        data = b"".join(readers.map(lambda part: _read(source, *part[:3]), block.parts))
        return data if block.apart else _compress(data, method)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, ThreadPoolExecutor(READERS) as readers:
        ahead: list[Future[bytes]] = []
        for block in blocks:
            ahead.append(pool.submit(make, block))
            if len(ahead) > WINDOW:
                yield ahead.pop(0).result()
        for one in ahead:
            yield one.result()


def _read(folder: Path, name: str, at: int, size: int) -> bytes:
    handle = os.open(f"{folder}/{name}", os.O_RDONLY)  # Path and open() take longer than reading
    try:
        data = os.pread(handle, size, at)
        while len(data) < size and (more := os.pread(handle, size - len(data), at + len(data))):
            data += more
    finally:
        os.close(handle)
    if len(data) != size:
        raise OSError(f"{name} became shorter while it was read")
    return data


def parents_of(files: Collection[str]) -> set[str]:
    """Return all folders that files are in."""
    return _with_parents({path.rpartition("/")[0] for path in files})


def _with_parents(folders: Collection[str]) -> set[str]:
    all_folders = set(folders)
    for folder in folders:
        while folder := folder.rpartition("/")[0]:
            all_folders.add(folder)
    return all_folders - {""}


def _folders(files: Collection[str], made: AbstractSet[str]) -> list[str]:
    """Return the innermost folders of files, and those to create: creating them creates all."""
    every = parents_of(files) | _with_parents(made)
    return sorted(every - {folder.rpartition("/")[0] for folder in every})


def _cold(files: Collection[str], chosen: Collection[str], made: AbstractSet[str]) -> list[str]:
    """Return what is linked to the share: files beside hot ones, and folders not created."""
    warm = {".", *parents_of(chosen), *_with_parents(made)}
    hot = set(chosen)
    cold = set()
    for path in files:
        if path in hot:
            continue
        top = PurePosixPath(path)
        while str(top.parent) not in warm:
            top = top.parent
        cold.add(str(top))
    return sorted(cold)
