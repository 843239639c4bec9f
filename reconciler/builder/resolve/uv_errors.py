"""Explanation of uv's errors, with the position of the requirement to blame."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.utils import canonicalize_name

from reconciler.core.definitions import Place, Recipe, Requirement, SourcePackage
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime

WORDS_LIMIT = 3000
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def untrusted(index: str, place: Place | None = None) -> Retryable:
    """Return the error for an index with an untrusted certificate."""
    return Retryable(
        Reason.INDEX_CERTIFICATE,
        f"index {index} shows a certificate that is not trusted; set its caBundle, or have the "
        f"certificate renewed",
        place,
    )


def without_hints(output: str) -> str:
    """Return the resolver's explanation in one line, without its warnings and hints.

    Hints name options of its command line, which no definition has.
    """
    lines: list[str] = []
    for line in output.strip().splitlines():
        if line.strip().startswith("hint:"):
            break
        if line.startswith("warning:"):
            continue
        lines.append(re.sub(r"^\s*(error|cause):", "", line))
    text = re.sub(r"[│╰├─▶╭×]+", " ", " ".join(lines))
    return " ".join(text.split())[:WORDS_LIMIT]


def names_in(output: str) -> set[str]:
    """Return the normalised names of everything in the resolver's output that may be a package."""
    return {canonicalize_name(word.rstrip("._-")) for word in WORD.findall(output)}


def place_of(name: str, recipe: Recipe) -> Place | None:
    """Return the place of a package's requirement, or of the first one for a dependency."""
    for requirement in recipe.requirements:
        if canonicalize_name(name_of(requirement)) == canonicalize_name(name):
            return requirement.place
    return recipe.requirements[0].place if recipe.requirements else None


def name_of(requirement: Requirement) -> str:
    """Return the name at the start of a requirement."""
    return re.split(r"[^A-Za-z0-9._-]", requirement.text.strip(), maxsplit=1)[0]


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
            message = _replacing(package.path, f"{name} {base[name]}", runtime)
            message += "; call it otherwise, or take it out of the image"
            raise Stalled(Reason.RESOLUTION_CONFLICT, message, package.place)
