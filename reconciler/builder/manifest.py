"""Descriptions of a build: build.json for the loader, and the SBOM for everyone else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from packaging.utils import canonicalize_name

from reconciler.builder.build_job import BuildJob
from reconciler.builder.resolve.choice import Wheel
from reconciler.builder.sbom_properties import BASE_REQUIREMENT, COMPLETE
from reconciler.builder.wheels.download import RECIPE_VERSION
from reconciler.builder.wheels.overlap import Facts
from reconciler.builder.wheels.requires import requirements_of
from reconciler.core.definitions import Recipe
from reconciler.core.runtime import Runtime
from reconciler.share.share import Share


@dataclass(frozen=True, slots=True)
class Parts:
    """Files beside the packages: their store entry, and which of them are jars or programs."""

    entry: str | None = None
    jars: tuple[str, ...] = ()
    has_bin: bool = False


def build_id_of(
    lock: str, recipe: Recipe, runtime: Runtime, made: Iterable[tuple[str, str]] = ()
) -> str:
    """Return the first 16 hex digits of the SHA-256 of everything that makes up a build.

    `made` are (name, SHA-256) of the wheels that were built from source: a tree or an sdist does
    not determine the result. Limits are not included: environments with different limits share a
    build.
    """
    checks = asdict(recipe.checks)
    del checks["budget"]
    if not checks["exclude"]:
        del checks["exclude"]
    document: dict[str, object] = {
        "lock": hashlib.sha256(lock.encode()).hexdigest(),
        "trees": [[p.name, p.tree] for p in recipe.packages],
        "files": [asdict(f) for f in recipe.files],
        "env": list(map(list, recipe.env)),
        "checks": checks,
        "runtime": runtime.key,
        "entries": RECIPE_VERSION,
    }
    if sources := sorted(map(list, made)):
        document["made"] = sources
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_json(
    build_id: str,
    recipe: Recipe,
    runtime: Runtime,
    job: BuildJob,
    wheels: Sequence[Wheel],
    order: Mapping[str, Facts],
    files: Parts,
    share: Share,
) -> dict[str, object]:
    """Return the document that the loader reads; every path is relative to the share's root.

    `order` are the entries on the path.
    """
    paths, bins = [], []
    for digest, facts in order.items():
        relative = share.entry(digest).relative_to(share.root).as_posix()
        paths.append({"path": f"{relative}/{facts.site}", **({"pth": True} if facts.pth else {})})
        if facts.bin:
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


@dataclass(frozen=True, slots=True)
class Requirements:
    """Packages that a definition requests, and those of build and base that each wheel requires."""

    requested: frozenset[str]
    required: Mapping[str, frozenset[str]]


def requirements_in(
    recipe: Recipe, runtime: Runtime, facts: Mapping[str, Facts]
) -> Requirements | None:
    """Return the requirements between packages, by the facts of each wheel; None if unknown.

    Wheels that an earlier version placed have no requirements recorded.
    """
    declared = {name: one.requires for name, one in facts.items()}
    known = {*declared, *(canonicalize_name(one.name) for one in runtime.base)}
    lines = {name: line for name, line in declared.items() if line is not None}
    if len(lines) < len(declared):
        return None
    requested = [one.text for one in recipe.requirements]
    return Requirements(*requirements_of(lines, requested, known, runtime))


def sbom(build_id: str, wheels: Sequence[Wheel], known: Requirements | None = None) -> str:
    """Return a CycloneDX document of what the build installs, and what requires what if known.

    A wheel's part of it is rendered once for all builds that contain the wheel: rendering is most
    of the cost of one more build of existing wheels.
    """
    document = _rendered(build_id, [])
    chosen = sorted({(w.name, w.version, w.sha256) for w in wheels})
    refs = sorted(_ref(name, version) for name, version, _ in chosen)
    (about,) = document["dependencies"]
    made = {**about, "dependsOn": refs} if refs else about
    others = [{"ref": ref} for ref in refs]
    document["dependencies"] = sorted([*others, made], key=lambda one: str(one["ref"]))
    if chosen:
        document["components"] = [_part(*wheel) for wheel in chosen]
    if known is not None:
        _add_requirements(document, {name: _ref(name, v) for name, v, _ in chosen}, known)
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _add_requirements(
    document: dict[str, Any], refs: Mapping[str, str], known: Requirements
) -> None:
    """Say what requires what: packages of the base are no components, so they are properties."""
    about = document["metadata"]["component"]
    required = {refs[name]: names for name, names in known.required.items() if name in refs}
    required[about["bom-ref"]] = known.requested
    for one in document["dependencies"]:
        within = sorted(refs[name] for name in required.get(one["ref"], ()) if name in refs)
        one.pop("dependsOn", None)
        if within:
            one["dependsOn"] = within
    components = [dict(part) for part in document.get("components", [])]
    for part in (about, *components):
        of_base = sorted(required.get(part["bom-ref"], frozenset()) - refs.keys())
        properties = [{"name": BASE_REQUIREMENT, "value": name} for name in of_base]
        if properties:
            part["properties"] = properties
    about["properties"] = [*about.get("properties", []), {"name": COMPLETE, "value": "complete"}]
    if components:
        document["components"] = components


@lru_cache(maxsize=4096)
def _part(name: str, version: str, sha256: str) -> Mapping[str, object]:
    (part,) = _rendered("", [(name, version, sha256)])["components"]
    component: Mapping[str, object] = part
    return component


def _ref(name: str, version: str) -> str:
    return f"{name}@{version}"


def _rendered(build_id: str, wheels: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Return the whole document of wheels given as (name, version, SHA-256).

    The library is imported only here: a daemon starts without it.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot5
    from packageurl import PackageURL

    bom = Bom(
        components=[
            Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                purl=PackageURL("pypi", None, name, version),
                bom_ref=_ref(name, version),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
            )
            for name, version, sha256 in wheels
        ]
    )
    bom.metadata.component = Component(
        name=build_id, type=ComponentType.APPLICATION, bom_ref=f"build-{build_id}"
    )
    bom.register_dependency(bom.metadata.component, bom.components)
    document: dict[str, Any] = json.loads(JsonV1Dot5(bom).output_as_string())
    document.pop("serialNumber", None)
    document.get("metadata", {}).pop("timestamp", None)
    return document
