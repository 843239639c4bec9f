"""The cost of a process's start on a slow share, in round trips, which is a stable measure."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.imports import HELD
from benchmarks.slowshare import mounted
from reconciler.share.share import BaseName
from tests.harness.packed_share import Site
from tests.harness.shares import RUNTIME, B, abi_of

MODULES = 150
DIGEST = "f" * 64
CODE = "import importlib; [importlib.import_module(f'wide.m{n}') for n in range(150)]"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a build with a package of many modules, half of which are never imported."""
    if not os.access("/dev/fuse", os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("needs FUSE: /dev/fuse, fuse3, libfuse3-dev, pkg-config, cc")
    site = Site(tmp_path)
    hot = {"lib/wide/__init__.py": b""}
    hot |= {f"lib/wide/m{n}.py": b"X = 1\n" * 50 for n in range(MODULES)}
    cold = {f"lib/wide/tests/t{n}.py": b"Y = 2\n" for n in range(MODULES)}
    site.add(B, DIGEST, {**hot, **cold})
    site.share.put_packs(B, {DIGEST: set(hot)})
    site.share.point("dev", BaseName(RUNTIME, abi_of(site.python), "3.3.2"), B, ["scheduler"])
    return site


def trips(site: Site, local: str, starts: int) -> list[list[str]]:
    """Return the requests of each of several consecutive starts to a fresh mount.

    The last start comes when the client's cached attributes have expired.
    """
    at = site.root / "mnt"
    requests: list[list[str]] = []
    with mounted(site.share.root, at, trip=0.0, megabytes=10_000.0) as counts:
        for number in range(1, starts + 1):
            time.sleep(HELD if 1 < number == starts else 0.0)
            subprocess.run(
                [site.python, "-c", CODE],
                check=True,
                timeout=60,
                env={
                    "PATH": os.defpath,
                    "GROUNDCREW_COMPONENT": "scheduler",
                    "GROUNDCREW_LOCAL": local,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONPATH": f"{at / 'instances' / 'dev' / 'loader'}:{site.base}",
                },
            )
            requests.append(counts.asked()[sum(map(len, requests)) :])
    return requests


def test_a_start_costs_few_round_trips(site: Site) -> None:
    """The first process of a machine reads packs, every later one almost nothing."""
    first, *further = trips(site, str(site.local), 3)
    (folder,) = trips(site, "off", 1)
    assert len(first) <= 45, f"the loader, three documents and one pack: {first}"
    reads = [row for row in first if row.startswith("read ") and row.endswith(".pack")]
    assert len(reads) == 1, "the block is in what was read to see the index"
    for asked in further:
        assert len(asked) <= 15, f"the loader, the pointer, a look at build.json: {asked}"
    assert len(folder) >= 10 * len(first), "each module on its own"
