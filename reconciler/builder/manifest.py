"""What describes a build: build.json for the loader, and the SBOM for everyone else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot5
from packageurl import PackageURL

from reconciler.builder.job import Job
from reconciler.builder.wheels import Wheel, has_pth
from reconciler.core.definitions import Recipe
from reconciler.core.model import Runtime


class Entries(Protocol):
    """Where store entries are."""

    root: Path

    def entry(self, digest: str) -> Path:
        """The path of one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Files beside the packages: their store entry, and which of them are jars or programs."""

    entry: str | None = None
    jars: tuple[str, ...] = ()
    has_bin: bool = False


def build_json(
    build_id: str,
    recipe: Recipe,
    runtime: Runtime,
    job: Job,
    wheels: Sequence[Wheel],
    order: Sequence[str],
    files: Parts,
    share: Entries,
) -> dict[str, object]:
    """The document that the loader reads; every path is relative to the share's root."""
    paths, bins = [], []
    for digest in order:
        entry = share.entry(digest)
        relative = entry.relative_to(share.root).as_posix()
        paths.append({"path": f"{relative}/lib", "pth": has_pth(entry)})
        if (entry / "bin").is_dir():
            bins.append(f"{relative}/bin")
    jars = []
    if files.entry is not None:
        relative = share.entry(files.entry).relative_to(share.root).as_posix()
        jars = [f"{relative}/files/{jar}" for jar in files.jars]
        if files.has_bin:
            bins.append(f"{relative}/files/bin")
    return {
        "schema": 1,
        "build": build_id,
        "abi": f"{runtime.python_tag}-{runtime.platform}",
        "runtime": runtime.key,
        "airflow": runtime.airflow_version,
        "environment": job.environment,
        "team": job.team,
        "recipe": recipe.digest,
        "entries": [*order, *([files.entry] if files.entry else [])],
        "paths": paths,
        "bin": bins,
        "jars": jars,
        "env": dict(recipe.env),
        "distributions": [
            {"name": w.name, "version": w.version, "sha256": w.sha256} for w in wheels
        ],
        "overrides": [],
    }


def sbom(build_id: str, wheels: Sequence[Wheel]) -> str:
    """A CycloneDX document of what the build installs."""
    bom = Bom(
        components=[
            Component(
                name=wheel.name,
                version=wheel.version,
                type=ComponentType.LIBRARY,
                purl=PackageURL("pypi", None, wheel.name, wheel.version),
                bom_ref=f"{wheel.name}@{wheel.version}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
            )
            for wheel in wheels
        ]
    )
    bom.metadata.component = Component(
        name=build_id, type=ComponentType.APPLICATION, bom_ref=f"build-{build_id}"
    )
    bom.register_dependency(bom.metadata.component, bom.components)
    document = json.loads(JsonV1Dot5(bom).output_as_string())
    document.pop("serialNumber", None)
    document.get("metadata", {}).pop("timestamp", None)
    return json.dumps(document, indent=1, sort_keys=True)
