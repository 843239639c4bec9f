"""Inspection of a base by its own interpreter."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field

from reconciler.builder.executor.protocol import read_result
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Distribution, Image, Runtime
from reconciler.documents import Document, Malformed, Rows, parse

INVENTORY_LIMIT = 16 << 20  # bytes

Word = Annotated[str, Field(max_length=300)]


class InventoryRow(Document):
    """A distribution that is installed in a base."""

    name: Word
    version: Word | None  # None: its metadata is broken
    requires: Annotated[Rows[str], Field(max_length=5000)]
    provides_extra: Annotated[Rows[str], Field(max_length=5000)]
    requires_python: str | None


class Inventory(Document):
    """An interpreter and all that is installed for it, as it says itself."""

    python: Annotated[str, Field(max_length=4096)]
    python_version: Word
    python_tag: Word
    platform: Word
    tags: Annotated[Rows[Word], Field(max_length=10_000)]
    base: Annotated[Rows[InventoryRow], Field(max_length=20_000)]
    listing: Word | None = None  # None: an earlier version's


def inspect_base(python: str) -> Runtime:
    """Return the runtime of an interpreter. Raises Stalled("BaseUnreadable")."""
    source = resources.files("reconciler.builder.base") / "inventory.py"
    try:
        with tempfile.TemporaryDirectory(prefix="groundcrew-base-") as folder:
            answer = Path(folder, "inventory.json")
            subprocess.run(
                [python, "-I", "-c", source.read_text(), str(answer)],
                capture_output=True,
                timeout=60,
                check=False,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                cwd="/",
            )
            data = read_result(answer, INVENTORY_LIMIT) or b""
            inventory = parse(Inventory, data, "its inventory")
    except (OSError, Malformed, subprocess.TimeoutExpired) as error:
        raise Stalled(
            Reason.BASE_UNREADABLE,
            f"{python} cannot be inspected ({type(error).__name__}); is it the interpreter "
            f"of an Airflow installation?",
        ) from error
    return runtime_of(inventory, python)


def runtime_of(inventory: Inventory, python: str, image: Image | None = None) -> Runtime:
    """Return the runtime of an inventory. Raises Stalled("BaseUnreadable") without Airflow."""
    base = tuple(
        Distribution(
            row.name,
            str(row.version),
            tuple(row.requires),
            tuple(row.provides_extra),
            row.requires_python,
        )
        for row in inventory.base
    )
    versions = {d.name: d.version for d in base}
    airflow = versions.get("apache-airflow") or versions.get("apache-airflow-core")
    if airflow is None:
        source = f"the image {image.reference}" if image is not None else python
        raise Stalled(
            Reason.BASE_UNREADABLE,
            f"{source} has no Airflow; give the interpreter or image that runs it",
        )
    pins = "\n".join(f"{d.name}=={d.version}" for d in base)
    mark = hashlib.sha256(pins.encode()).hexdigest()[:12]
    tag, platform = inventory.python_tag, inventory.platform
    return Runtime(
        key=f"{tag}-{platform}-airflow{airflow}-{mark}",
        python=python,
        python_version=inventory.python_version,
        python_tag=tag,
        platform=platform,
        airflow_version=airflow,
        tags=tuple(inventory.tags),
        base=base,
        image=image,
        listing=inventory.listing or "",
    )
