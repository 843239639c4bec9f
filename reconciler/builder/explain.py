"""Explanation of uv's errors, with the position of the requirement to blame."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from reconciler.core.definitions import Place, Recipe, Requirement, SourcePackage
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.runtime import Runtime

NETWORK = (
    "failed to fetch", "error sending request", "connection refused", "timed out",
    "dns error", "could not connect", "502 bad gateway", "503 service",
)  # fmt: skip
WORDS_LIMIT = 3000


def explain(
    output: str,
    recipe: Recipe,
    runtime: Runtime,
    refused: Mapping[str, str],
    sources_only: Sequence[str] = (),
) -> GroundcrewError:
    """Translate a failed resolution into an error.

    `refused` maps names to the index that denied them; `sources_only` have only sdists.
    """
    words = _trimmed(output)
    lower = words.lower()
    place = blamed(words, recipe)
    if refused:
        name, index = next(iter(refused.items()))
        return Retryable(
            "IndexDenied",
            f"index {index} refuses the credentials (asked for {name}); renew the secret",
            place,
        )
    hidden = next((n for n in sources_only if named(n, words)), None)
    if hidden is not None:
        return Stalled(
            "SourceBuildRefused",
            f"{hidden} has no wheel, only an sdist; choose a version that has one, or add its name "
            f"to sourceBuilds. {words}",
            place,
        )
    if "no wheels with a matching" in lower or "source distribution" in lower or (
        "no usable wheels" in lower or "building source" in lower or "pre-built wheels" in lower
    ):  # fmt: skip
        return Stalled(
            "SourceBuildRefused",
            f"a package has no wheel for {runtime.python_tag} on {runtime.platform}; choose a "
            f"version that has one, or add its name to sourceBuilds. {words}",
            place,
        )
    if "invalid peer certificate" in lower:
        return untrusted("default", place)
    if any(mark in lower for mark in NETWORK):
        return Retryable("IndexUnreachable", f"a package index does not answer. {words}", place)
    against = _against_base(recipe, runtime)
    if against is not None:
        return Stalled("ResolutionConflict", f"{against[0]} {words}", against[1])
    if "was not found" in lower and "because" in lower:
        return Stalled("NotFound", words, place)
    return Stalled("ResolutionConflict", words, place)


def untrusted(index: str, place: Place | None = None) -> Retryable:
    """Return the error for an index with an untrusted certificate."""
    return Retryable(
        "IndexCertificate",
        f"index {index} shows a certificate that is not trusted; set its caBundle, or have the "
        f"certificate renewed",
        place,
    )


def _trimmed(output: str) -> str:
    text = output.strip()
    start = text.find("×")
    if start >= 0:
        text = text[start + 1 :]
    text = re.sub(r"[│╰├─▶╭]+", " ", text)
    return " ".join(text.split())[:WORDS_LIMIT]


def blamed(words: str, recipe: Recipe) -> Place | None:
    """Return the place of the first requirement that the explanation names."""
    positions: list[tuple[int, Place]] = []
    for requirement in recipe.requirements:
        found = named(name_of(requirement), words)
        if found:
            positions.append((found.start(), requirement.place))
    if positions:
        return min(positions, key=lambda pair: pair[0])[1]
    return recipe.requirements[0].place if recipe.requirements else None


def place_of(name: str, recipe: Recipe) -> Place | None:
    """Return the place of a package's requirement, or of the first one for a dependency."""
    for requirement in recipe.requirements:
        if canonicalize_name(name_of(requirement)) == canonicalize_name(name):
            return requirement.place
    return recipe.requirements[0].place if recipe.requirements else None


def name_of(requirement: Requirement) -> str:
    """Return the name at the start of a requirement."""
    return re.split(r"[^A-Za-z0-9._-]", requirement.text.strip(), maxsplit=1)[0]


def named(name: str, words: str) -> re.Match[str] | None:
    """Return the match of a package's name in an explanation, or None."""
    wanted = re.escape(canonicalize_name(name))
    return re.search(rf"(?<![\w-]){wanted}(?![\w-])", words, re.IGNORECASE)


def _against_base(recipe: Recipe, runtime: Runtime) -> tuple[str, Place] | None:
    """Return a text about a requirement that excludes the base's version, and its place."""
    base = {d.name: d.version for d in runtime.base}
    for requirement in recipe.requirements:
        if requirement.package is not None:
            continue
        try:
            parsed = Parsed(requirement.text)
            version = base.get(canonicalize_name(parsed.name))
            fits = version is None or parsed.specifier.contains(version, prereleases=True)
        except (InvalidRequirement, InvalidVersion):
            continue
        if not fits:
            words = _replacing(requirement.text, f"{parsed.name} {version}", runtime)
            words += f"; ask for a version that allows {version}, or upgrade Airflow."
            return words, requirement.place
    return None


def _replacing(asked: str, there: str, runtime: Runtime) -> str:
    return (
        f"{asked} is not possible: the base (Airflow {runtime.airflow_version}) has {there}, and "
        f"replacing a package of the base is refused for now"
    )


def refuse_replacing(packages: Sequence[SourcePackage], runtime: Runtime) -> None:
    """Raise Stalled("ResolutionConflict") for an in-repo package that is also in the base.

    The base's copy would be loaded, whatever its version, as the base comes first.
    """
    base = {d.name: d.version for d in runtime.base}
    for package in packages:
        name = canonicalize_name(package.name)
        if name in base:
            words = _replacing(package.path, f"{name} {base[name]}", runtime)
            words += "; call it otherwise, or take it out of the image"
            raise Stalled("ResolutionConflict", words, package.place)
