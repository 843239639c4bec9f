"""Choice of a locked package's wheel for a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from reconciler.builder.index.filenames import refuse_file_name
from reconciler.builder.resolve.pylock import LockedFile, LockedPackage


@dataclass(frozen=True, slots=True)
class Wheel:
    """Wheel of a lock that fits the runtime; `path` is set once it is fetched."""

    name: str
    version: str
    filename: str
    sha256: str
    url: str = ""
    path: Path | None = None


@lru_cache(maxsize=64)  # runtimes
def _order(tags: tuple[str, ...]) -> Mapping[str, int]:
    """Return the rank of each tag: 0 is best."""
    return {tag: number for number, tag in enumerate(tags)}


def choose(files: Sequence[LockedFile], tags: Sequence[str]) -> LockedFile | None:
    """Return the best wheel of a locked package, or None if none fits."""
    order = _order(tuple(tags))
    best: tuple[int, LockedFile] | None = None
    for file in files:
        try:
            _, _, _, wheel_tags = parse_wheel_filename(file.filename)
        except InvalidWheelFilename:
            continue
        ranks = [order[str(t)] for t in wheel_tags if str(t) in order]
        if ranks and (best is None or min(ranks) < best[0]):
            best = (min(ranks), file)
    return best[1] if best is not None else None


def locked(package: LockedPackage, tags: Sequence[str]) -> Wheel | None:
    """Return the index's wheel of a locked package, or None if it has none that fits.

    Raises Stalled("UnsafeWheel") for an invalid file name.
    """
    chosen = choose(package.wheels, tags) if package.directory is None else None
    if chosen is None:
        return None
    refuse_file_name(chosen.filename)
    return Wheel(package.key, package.version, chosen.filename, chosen.hashes.sha256, chosen.url)
