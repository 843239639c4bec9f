"""Stand-ins for the base's distributions: empty wheels, so that no index needs these versions.

An image may contain packages that its makers built themselves, or versions that were removed from
the index. uv is given the metadata of the base (see `locking`), but it chooses from files: these
are the files. They are never installed and never in a lock.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from reconciler.builder.resolve.base_metadata import usable
from reconciler.core.runtime import Distribution, Runtime


def stand_ins(runtime: Runtime, cache: Path) -> Path:
    """Return a folder with a stand-in for every distribution of the base, once per runtime."""
    folder = cache / "stand-ins" / runtime.key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temp = folder.with_name(f".tmp-{os.urandom(6).hex()}")
    temp.mkdir()
    try:
        for dist in usable(runtime):
            _write(dist, temp)
        temp.rename(folder)
    except OSError:
        shutil.rmtree(temp, ignore_errors=True)
        if not folder.is_dir():  # otherwise another build was faster
            raise
    return folder


def _write(dist: Distribution, folder: Path) -> None:
    stem = f"{canonicalize_name(dist.name).replace('-', '_')}-{Version(dist.version)}"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {dist.name}\nVersion: {dist.version}\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: groundcrew\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
