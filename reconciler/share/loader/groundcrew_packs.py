"""Reader of packs (see reconciler.share.packs), shared by the loader and the daemon.

Standard library only, Python 3.9 and newer.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # type checkers treat it as true: typing costs an import
if TYPE_CHECKING:
    from typing import Any

MAGIC = b"GCPACK1\n"
MAGIC_XZ = b"GCPACK2\n"  # some block is compressed by xz: earlier readers must reject it
MAGICS = (MAGIC, MAGIC_XZ)
HEAD = 64 << 10  # bytes read at first: enough for most indexes, and for small packs as a whole
INDEX_LIMIT = 64 << 20  # bytes of a pack's index
BLOCK_LIMIT = 256 << 20  # bytes of one block, compressed or not


class Spoiled(Exception):
    """Pack that differs from the build's manifest."""


def open_pack(path: str, digest: str) -> tuple[int, int, dict[str, Any], memoryview]:
    """Return (handle, offset of the first block, index, bytes read) of the pack with this SHA-256.

    It is read past the page cache if possible: once, in as few requests as the share allows.
    Raises OSError, or Spoiled if it is no pack, is damaged or has another digest.
    """
    for flags in (getattr(os, "O_DIRECT", 0), 0):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
        except OSError as error:
            if flags and error.errno == errno.EINVAL:
                continue
            raise
        try:
            return (handle, *read_index(handle, digest))
        except BaseException as error:
            os.close(handle)
            if not flags or not isinstance(error, OSError) or error.errno != errno.EINVAL:
                raise
    raise Spoiled("it cannot be opened")


def read_index(handle: int, digest: str) -> tuple[int, dict[str, Any], memoryview]:
    """Return (offset of the first block, index, bytes read) of an open pack with this SHA-256.

    Raises OSError or Spoiled.
    """
    import hashlib
    import json
    import zlib

    head = read_range(handle, 0, HEAD)
    size = int.from_bytes(head[8:12], "little") + 12
    if head[:8] not in MAGICS or size > INDEX_LIMIT:
        raise Spoiled("it is no pack")
    if size > HEAD:
        head = read_range(handle, 0, size)
    if len(head) < size or hashlib.sha256(head[:size]).hexdigest() != digest:
        raise Spoiled("its index has another digest")
    try:
        index = json.loads(zlib.decompress(head[12:size]))
    except (ValueError, zlib.error) as error:
        raise Spoiled("its index cannot be read") from error
    return size, index, head


def read_block(
    handle: int, block: dict[str, Any], offset: int, head: memoryview | None = None
) -> bytes | memoryview:
    """Return a block of an open pack or of an open file of the entry, checked and decompressed.

    `head` is what was already read of the file: it contains small packs as a whole. Raises
    OSError, Spoiled, and ImportError if the block is compressed by xz and this Python was built
    without.
    """
    import hashlib

    if block["packed"] > BLOCK_LIMIT:
        raise Spoiled("a block is too large")
    data: bytes | memoryview
    if head is not None and offset + block["packed"] <= len(head):
        data = head[offset : offset + block["packed"]]
    else:
        data = read_range(handle, offset, block["packed"])
    if len(data) < block["packed"] or hashlib.sha256(data).hexdigest() != block["sha256"]:
        raise Spoiled("a block has another digest")
    size = sum(part[2] for part in block["parts"])
    data = _decompress(data, block, size)
    if len(data) != size:
        raise Spoiled("a block is not as large as its parts")
    return data


def _decompress(data: bytes | memoryview, block: dict[str, Any], size: int) -> bytes | memoryview:
    if block.get("xz"):
        import lzma

        try:
            return lzma.decompress(data)
        except lzma.LZMAError as error:
            raise Spoiled("a block cannot be decompressed") from error
    if block["zlib"]:
        import zlib

        try:
            return zlib.decompress(data, bufsize=max(1, size))
        except zlib.error as error:
            raise Spoiled("a block cannot be decompressed") from error
    return data


def read_range(handle: int, offset: int, size: int) -> memoryview:
    """Return `size` bytes from `offset`, fewer at the end of the file; reads whole pages."""
    import mmap

    begin = offset % mmap.PAGESIZE
    pages = -(-(begin + size) // mmap.PAGESIZE)
    room = memoryview(mmap.mmap(-1, max(pages, 1) * mmap.PAGESIZE))
    seen = 0
    while seen < begin + size:
        done = os.preadv(handle, [room[seen:]], offset - begin + seen)
        seen += done
        if not done or seen % mmap.PAGESIZE:  # the end of the file
            break
    return room[begin : min(begin + size, max(seen, begin))]
