"""Environments that share nine tenths of their wheels: disk use, and the cost of one more.

The common wheels are the real ones that the benchmark `imports` loads; each environment has a tenth
as many of its own, about the size of in-house packages. Only the steps after resolving are done
here: locks are written by hand. Verification reports the hot files of the first environment; of the
other environments' own wheels, all modules are hot. Peers are measured on a few environments; their
disk use for all is extrapolated from what the last one added.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from benchmarks.imports import MODULES as IMPORTED
from benchmarks.imports import WANTED, base_of
from benchmarks.rows import Row
from reconciler.builder.builder import Built
from reconciler.builder.uv import uv_path
from reconciler.core.definitions import Checks
from reconciler.share.hot import pack_path
from reconciler.share.packs import Pack, held, read_head
from tests.harness.builder import Bench
from tests.harness.wheels import make_wheel

SIZES = (50, 500)
OWN = 4  # wheels of each environment, in addition to 36 that all have
PEERS = 5  # environments that each peer creates
AGAIN = 20  # more environments, of wheels that already exist
WORDS = [f"{number:04x} " for number in range(0, 1 << 16, 24)]
MODULES, MODULE, COLD = 4, 20_000, 80_000  # of an environment's own wheel: number of modules, bytes
NOTES = ("direct_url.json", "uv_cache.json")  # of wheels from outside an index: none in practice
MIB = 1 << 20


Common = tuple[list[Path], tuple[str, ...]]  # wheels, and the modules of them that are imported


@dataclass(frozen=True, slots=True)
class Ours:
    """Our figures: MiB in all and of packs, seconds of each environment."""

    disk: float
    packs: float
    entries: int
    new: list[float]
    again: list[float]


@dataclass(frozen=True, slots=True)
class Peer:
    """Figures of an alternative: MiB for all, seconds of each environment."""

    name: str
    disk: float
    seconds: float


def run(sizes: Sequence[int] = SIZES) -> list[Row]:
    """Return the rows of this benchmark."""
    rows: list[Row] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            rows += _measure(Path(directory), size, _real)
    return rows


def short() -> list[Row]:
    """Return the counts for six environments of a large wheel and small ones, without peers."""
    with tempfile.TemporaryDirectory() as directory:
        return [row for row in _measure(Path(directory), 6, _small, peers=False) if row.count]


def _measure(
    root: Path, size: int, common: Callable[[Bench], Common], *, peers: bool = True
) -> list[Row]:
    bench = Bench(root / "bench")
    shared, imports = common(bench)
    with bench:
        wheels = [shared + _own(bench.public.folder, number) for number in range(size)]
        _uv(bench, root, sorted(bench.public.folder.glob("*.whl")), root / "once")
        unique = _disk([root / "once"])
        ours = _ours(bench, wheels, imports)
        others = _peers(bench, root, wheels, size) if peers else []
    name = f"sharing, {size} environments"
    made = 1000 * statistics.median(ours.again)
    rows = [
        Row(
            name,
            "disk: store and builds",
            ours.disk,
            "MiB",
            "≤ 1.1 × each wheel once",
            1.1 * unique,
            "each wheel once",
            unique,
            count=True,
        ),
        Row(name, "of that, packs for quick imports", ours.packs, "MiB"),
        Row(
            name,
            "store entries",
            ours.entries,
            "",
            "as many as wheels",
            len(shared) + OWN * size,
            count=True,
        ),
        Row(
            name,
            "one more of wheels that are there, beyond resolving (median)",
            made,
            "ms",
            "≤ 50 ms",
            50.0,
        ),
        Row(
            name,
            "one more with wheels of its own, beyond resolving (median)",
            1000 * statistics.median(ours.new),
            "ms",
        ),
    ]
    for peer in others:
        about = f"{peer.name}, {PEERS} measured"
        rows.append(Row(name, "disk", ours.disk, "MiB", peer=about, peer_value=peer.disk))
        rows.append(
            Row(
                name,
                "one more of wheels that are there",
                made,
                "ms",
                peer=about,
                peer_value=1000 * peer.seconds,
            )
        )
    return rows


# ---------------------------------------------------------------------------------------- wheels


def _real(bench: Bench) -> Common:
    """Return the wheels of a large environment as teams use them."""
    bench.python = base_of(bench.root)
    folder = bench.public.folder
    _run(
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        *WANTED,
    )
    return sorted(folder.glob("*.whl")), IMPORTED


def _small(bench: Bench) -> Common:
    """Return small wheels and one whose bytes are mostly in a library, as is typical."""
    folder = bench.public.folder
    chance = random.Random(20)
    library = _words(chance, 1_000_000) * 32
    data = {"large/library.bin": library, "large/cold.dat": _words(chance, COLD)}
    reading = "with open(__file__.replace('__init__.py', 'library.bin'), 'rb') as file:\n"
    large = make_wheel(folder, "large", files={"large/__init__.py": f"{reading}    1\n", **data})
    return [large, *(_wheel(folder, chance, f"common{number:02}") for number in range(17))], ()


def _own(folder: Path, number: int) -> list[Path]:
    chance = random.Random(number)
    return [_wheel(folder, chance, f"own{number:04}x{n}") for n in range(OWN)]


def _words(chance: random.Random, size: int) -> str:
    return "".join(chance.choices(WORDS, k=size // 5))


def _wheel(folder: Path, chance: random.Random, name: str) -> Path:
    modules = {f"{name}/m{n}.py": f'"""{_words(chance, MODULE)}"""\n' for n in range(MODULES)}
    imports = "".join(f"from . import m{n}\n" for n in range(MODULES))
    cold = _words(chance, COLD)
    return make_wheel(
        folder, name, files={f"{name}/__init__.py": imports, **modules, f"{name}/cold.dat": cold}
    )


def _lock(url: str, wheels: Iterable[Path]) -> str:
    """Return the lock that resolving would give for these wheels."""
    text = 'lock-version = "1.0"\ncreated-by = "hand"\n'
    for wheel in wheels:
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        name, version, _, _ = parse_wheel_filename(wheel.name)
        text += (
            f'\n[[packages]]\nname = "{name}"\nversion = "{version}"\n'
            f'wheels = [{{name = "{wheel.name}", url = "{url}/{wheel.name}", '
            f'hashes = {{sha256 = "{sha256}"}}}}]\n'
        )
    return text


# ------------------------------------------------------------------------------------ Groundcrew


def _ours(bench: Bench, wheels: Sequence[Sequence[Path]], imports: tuple[str, ...]) -> Ours:
    url = bench.public.url.replace("/simple/", "/packages")
    new, again = [], []
    recipe = bench.recipe(checks=Checks(imports=imports))

    def construct(lock: str, **more: Any) -> Built:
        job = bench.job()  # each build has its own log
        return bench.builder.construct(job, replace(recipe, **more), bench.runtime, lock)

    built = []
    for chosen in wheels:
        lock = _lock(url, chosen)
        begun = time.perf_counter()
        built.append(construct(lock).build_id)
        new.append(time.perf_counter() - begun)
    key = bench.runtime.key
    bench.builder.verify(bench.job(), recipe, bench.runtime, bench.instance(), built[0])
    report = bench.share.report(built[0], key) or {}
    told = {digest: _held(bench, digest, p) for digest, p in bench.share.packs(built[0]).items()}
    for build_id in built:
        bench.share.spread_build(build_id, lambda: None)
        entries = [bench.share.entry(d) for d in bench.share.on_path(build_id)]
        hot = {entry.name: told.get(entry.name) or _modules(entry) for entry in entries}
        bench.share.put_packs(build_id, hot)
        bench.share.mark_verified(build_id, key, report)
    packs = sum(path.stat().st_size for path in bench.share.root.rglob("*.pack")) / MIB
    disk = _disk([bench.share.root])
    count = len(list((bench.share.root / "store" / "sha256").glob("*/*/entry.json")))
    lock = _lock(url, wheels[0])
    for number in range(AGAIN):
        begun = time.perf_counter()
        construct(lock, env=(("NUMBER", str(number)),))
        again.append(time.perf_counter() - begun)
    return Ours(disk, packs, count, new, again)


def _held(bench: Bench, digest: str, pack: Pack) -> frozenset[str]:
    return held(read_head(pack_path(bench.share.entry(digest), pack.sha256))[1])


def _modules(entry: Path) -> frozenset[str]:
    """Return all sources and bytecode of an entry."""
    paths = (path for path in entry.rglob("*") if path.suffix in (".py", ".pyc"))
    return frozenset(path.relative_to(entry).as_posix() for path in paths)


def _disk(folders: Sequence[Path]) -> float:
    """Return the MiB that folders use on disk; hard-linked files count once."""
    seen: dict[int, int] = {}
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            if path.name in NOTES:
                continue
            status = path.lstat()
            seen[status.st_ino] = status.st_blocks * 512
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
        uv_path(),
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-config",
        "--python",
        bench.python,
        "--cache-dir",
        str(root / "uv-cache"),
        "--compile-bytecode",
        "--link-mode",
        "hardlink",
        "--target",
        str(target),
        *map(str, wheels),
    )


def _pip(bench: Bench, wheels: Sequence[Path], target: Path) -> None:
    _run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        bench.python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(target),
        *map(str, wheels),
    )


def _run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=900)
