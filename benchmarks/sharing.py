"""Environments that share nine tenths of their wheels: their disk, and what one more costs.

Each has eighteen wheels that all have and two of its own, of half a megabyte each. Two thirds of
that is hot and packs to a third, as it is in large real environments. Only what comes after
resolving is done here: locks are written by hand, and what verification would find hot is told.
Peers are measured on a few environments; their disk for all is those and so many times what one
more added.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import Row
from reconciler.builder.build import Built
from reconciler.builder.uv import uv_path
from reconciler.share.share import on_path
from tests.fakes.bench import Bench
from tests.fakes.wheels import make_wheel

SIZES = (50, 500)
COMMON, OWN = 18, 2
PEERS = 5  # environments that each peer makes
AGAIN = 20  # further environments of wheels that are there
WORDS = [f"{number:04x} " for number in range(0, 1 << 16, 24)]
MODULES, MODULE, LIBRARY, COLD = 4, 20_000, 200_000, 180_000  # how many, bytes
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Ours:
    """What it took: MiB with the packs and without, seconds of each environment."""

    disk: float
    unpacked: float
    entries: int
    new: list[float]
    again: list[float]


@dataclass(frozen=True, slots=True)
class Peer:
    """What somebody else takes: MiB for all, seconds of each environment."""

    name: str
    disk: float
    seconds: float


def run(sizes: Sequence[int] = SIZES) -> list[Row]:
    """The rows of this benchmark."""
    rows: list[Row] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            rows += _measure(Path(directory), size)
    return rows


def short() -> list[Row]:
    """Six environments, without peers."""
    with tempfile.TemporaryDirectory() as directory:
        return [row for row in _measure(Path(directory), 6, peers=0) if row.count]


def _measure(root: Path, size: int, peers: int = PEERS) -> list[Row]:
    with Bench(root / "bench") as bench:
        wheels = _wheels(bench.public.folder, size)
        _uv(bench, root, sorted(bench.public.folder.glob("*.whl")), root / "once")
        unique = _disk([root / "once"])
        ours = _ours(bench, wheels)
        others = _peers(bench, root, wheels, size)[:peers] if peers else []
    name = f"sharing, {size} environments"
    made = 1000 * statistics.median(ours.again)
    rows = [
        Row(name, "disk: store and builds, without packs", ours.unpacked, "MiB",
            "≤ 1.1 × each wheel once", 1.1 * unique, "each wheel once", unique, count=True),
        Row(name, "disk: packs for quick imports too", ours.disk, "MiB", "≤ 1.1 × each wheel once",
            1.1 * unique, "each wheel once", unique),
        Row(name, "store entries", ours.entries, "", "as many as wheels", COMMON + OWN * size,
            count=True),
        Row(name, "one more of wheels that are there, beyond resolving (median)", made, "ms",
            "≤ 50 ms", 50.0),
        Row(name, "one more with two wheels of its own, beyond resolving (median)",
            1000 * statistics.median(ours.new), "ms"),
    ]  # fmt: skip
    for peer in others:
        about = f"{peer.name}, {PEERS} measured"
        rows.append(Row(name, "disk", ours.disk, "MiB", peer=about, peer_value=peer.disk))
        rows.append(
            Row(name, "one more of wheels that are there", made, "ms", peer=about,
                peer_value=1000 * peer.seconds)
        )  # fmt: skip
    return rows


# ---------------------------------------------------------------------------------------- wheels


def _wheels(folder: Path, size: int) -> list[list[Path]]:
    """The wheels of each environment."""
    chance = random.Random(20)
    common = [_wheel(folder, chance, f"common{number:02}") for number in range(COMMON)]
    return [
        common + [_wheel(folder, chance, f"own{number:04}x{n}") for n in range(OWN)]
        for number in range(size)
    ]


def _wheel(folder: Path, chance: random.Random, name: str) -> Path:
    def words(size: int) -> str:
        return "".join(chance.choices(WORDS, k=size // 5))

    modules = {f"{name}/m{n}.py": f'"""{words(MODULE)}"""\n' for n in range(MODULES)}
    return make_wheel(
        folder,
        name,
        files={
            f"{name}/__init__.py": "",
            **modules,
            f"{name}/library.so": words(LIBRARY),
            f"{name}/cold.dat": words(COLD),
        },
    )


def _lock(url: str, wheels: Iterable[Path]) -> str:
    """What resolving gives for these wheels."""
    text = 'lock-version = "1.0"\ncreated-by = "hand"\n'
    for wheel in wheels:
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        text += (
            f'\n[[packages]]\nname = "{wheel.name.split("-")[0]}"\nversion = "1.0"\n'
            f'wheels = [{{name = "{wheel.name}", url = "{url}/{wheel.name}", '
            f'hashes = {{sha256 = "{sha256}"}}}}]\n'
        )
    return text


# ------------------------------------------------------------------------------------------ ours


def _ours(bench: Bench, wheels: Sequence[Sequence[Path]]) -> Ours:
    url = bench.public.url.replace("/simple/", "/packages")
    new, again = [], []

    def construct(lock: str, **more: object) -> Built:
        return bench.builder.construct(bench.job(), bench.recipe(**more), bench.runtime, lock)

    built = []
    for chosen in wheels:
        lock = _lock(url, chosen)
        begun = time.perf_counter()
        built.append(construct(lock).build_id)
        new.append(time.perf_counter() - begun)
    for build_id in built:
        bench.share.spread_build(build_id, lambda: None)
    unpacked = _disk([bench.share.root])
    for build_id in built:
        entries = [bench.share.entry(d) for d in on_path(bench.share.build(build_id) or {})]
        bench.share.put_packs(build_id, {entry.name: _hot(entry) for entry in entries})
    disk = _disk([bench.share.root])
    count = len(list((bench.share.root / "store" / "sha256").glob("*/*/entry.json")))
    lock = _lock(url, wheels[0])
    for number in range(AGAIN):
        begun = time.perf_counter()
        construct(lock, env=(("NUMBER", str(number)),))
        again.append(time.perf_counter() - begun)
    return Ours(disk, unpacked, count, new, again)


def _hot(entry: Path) -> set[str]:
    """All but the cold file, and folders."""
    files = (path for path in entry.rglob("*") if path.is_file() and path.suffix != ".dat")
    return {path.relative_to(entry).as_posix() for path in files}


def _disk(folders: Sequence[Path]) -> float:
    """MiB that folders take on the disk; what is linked several times counts once."""
    seen: dict[int, int] = {}
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            found = path.lstat()
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values()) / MIB


# ----------------------------------------------------------------------------------------- peers


def _peers(bench: Bench, root: Path, wheels: Sequence[Sequence[Path]], size: int) -> list[Peer]:
    def uv(chosen: Sequence[Path], target: Path) -> None:
        _uv(bench, root, chosen, target)

    def pip(chosen: Sequence[Path], target: Path) -> None:
        _pip(bench, chosen, target)

    def copy(_: Sequence[Path], target: Path) -> None:
        shutil.copytree(root / "uv pip install, hard links-0", target)

    return [
        _peer(root, wheels, size, "uv pip install, hard links", uv, [root / "uv-cache"]),
        _peer(root, wheels, size, "pip install --target", pip, []),
        _peer(root, wheels, size, "a copy of all files", copy, []),
    ]


def _peer(
    root: Path,
    wheels: Sequence[Sequence[Path]],
    size: int,
    name: str,
    make: Callable[[Sequence[Path], Path], None],
    cache: Sequence[Path],
) -> Peer:
    folders, seconds, disks = [*cache], [], []
    for number, chosen in enumerate(wheels[:PEERS]):
        folders.append(root / f"{name}-{number}")
        begun = time.perf_counter()
        make(chosen, folders[-1])
        seconds.append(time.perf_counter() - begun)
        disks.append(_disk(folders))
    each = (disks[-1] - disks[0]) / (len(disks) - 1)
    return Peer(name, disks[0] + each * (size - 1), statistics.median(seconds))


def _uv(bench: Bench, root: Path, wheels: Sequence[Path], target: Path) -> None:
    _run(
        uv_path(), "pip", "install", "--quiet", "--offline", "--no-deps", "--no-config",
        "--python", bench.python, "--cache-dir", str(root / "uv-cache"), "--compile-bytecode",
        "--link-mode", "hardlink", "--target", str(target), *map(str, wheels),
    )  # fmt: skip


def _pip(bench: Bench, wheels: Sequence[Path], target: Path) -> None:
    _run(
        sys.executable, "-m", "pip", "--python", bench.python, "install", "--quiet", "--no-deps",
        "--no-index", "--disable-pip-version-check", "--target", str(target), *map(str, wheels),
    )  # fmt: skip


def _run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=900)
