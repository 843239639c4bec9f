"""Metadata of the base for the resolver, without the parts that it would reject.

Installed metadata need not be valid by today's rules, and uv rejects everything for one line that
it cannot read. What is left out changes nothing: the base is installed already, and pinned.
"""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from reconciler.core.runtime import Distribution, Runtime


def usable(runtime: Runtime) -> tuple[Distribution, ...]:
    """Return the base's distributions whose names and versions a resolver can read."""
    distributions = []
    for dist in runtime.base:
        try:
            Version(dist.version)
        except (InvalidVersion, TypeError):
            continue
        if is_name(dist.name):
            distributions.append(dist)
    return tuple(distributions)


def is_name(text: str) -> bool:
    """Return True if the text is a valid name of a distribution or an extra."""
    try:
        canonicalize_name(text, validate=True)
    except InvalidName:
        return False
    return True


def metadata(dist: Distribution) -> dict[str, object]:
    """Return a distribution as a row of uv's dependency-metadata."""
    fields: dict[str, object] = {
        "name": dist.name,
        "version": dist.version,
        "requires-dist": list(_requirements(dist)),
        "provides-extra": [extra for extra in dist.provides_extra if is_name(extra)],
    }
    try:
        pythons = SpecifierSet(dist.requires_python or "")
    except InvalidSpecifier:
        return fields
    if pythons and not _odd(pythons):
        fields["requires-python"] = str(pythons)
    return fields


def _requirements(dist: Distribution) -> Iterator[str]:
    """Yield its requirements by name: those from a URL are in the base, too."""
    for text in dist.requires:
        try:
            parsed = Requirement(text)
        except InvalidRequirement:
            continue
        if not _odd(parsed.specifier):
            parsed.url = None
            yield str(parsed)


def _odd(specifiers: SpecifierSet) -> bool:
    """Return True if it may contain an invalid version."""
    return any(specifier.operator == "===" for specifier in specifiers)
