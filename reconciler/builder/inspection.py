"""Inspection of a base by its own interpreter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from reconciler.builder.workshop import read_result
from reconciler.core.errors import Stalled
from reconciler.core.runtime import Distribution, Image, Runtime

INVENTORY_LIMIT = 16 << 20  # bytes


def inspect_base(python: str) -> Runtime:
    """Return the runtime of an interpreter. Raises Stalled("BaseUnreadable")."""
    source = resources.files("reconciler.builder") / "inspect_base.py"
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
            found = json.loads(read_result(answer, INVENTORY_LIMIT) or b"")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Stalled(
            "BaseUnreadable",
            f"{python} cannot be inspected ({type(error).__name__}); is it the interpreter "
            f"of an Airflow installation?",
        ) from error
    return runtime_of(found, python)


def runtime_of(found: Any, python: str, image: Image | None = None) -> Runtime:
    """Return the runtime of an inventory. Raises Stalled("BaseUnreadable") without Airflow."""
    base = tuple(
        Distribution(
            d["name"],
            d["version"],
            tuple(d["requires"]),
            tuple(d["provides_extra"]),
            d["requires_python"],
        )
        for d in found["base"]
    )
    versions = {d.name: d.version for d in base}
    airflow = versions.get("apache-airflow") or versions.get("apache-airflow-core")
    if airflow is None:
        place = f"the image {image.reference}" if image is not None else python
        raise Stalled(
            "BaseUnreadable", f"{place} has no Airflow; give the interpreter or image that runs it"
        )
    inventory = "\n".join(f"{d.name}=={d.version}" for d in base)
    mark = hashlib.sha256(inventory.encode()).hexdigest()[:12]
    tag, platform = found["python_tag"], found["platform"]
    return Runtime(
        key=f"{tag}-{platform}-airflow{airflow}-{mark}",
        python=python,
        python_version=found["python_version"],
        python_tag=tag,
        platform=platform,
        airflow_version=airflow,
        tags=tuple(found["tags"]),
        base=base,
        image=image,
        listing=str(found.get("listing", "")),
    )
