"""Requirements of wheels: what their metadata declares, and which packages that means here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from reconciler.builder.resolve.markers import environment_of
from reconciler.core.runtime import Runtime

METADATA_LIMIT = 1 << 20  # bytes of a wheel's metadata that are read
LINES = 2000  # requirements of one wheel that are kept
LONGEST = 1000  # characters of one requirement
FIELD = "requires-dist:"


def declared(site: Path) -> tuple[str, ...]:
    """Return the requirements that the distributions in a folder of modules declare."""
    lines: list[str] = []
    for path in sorted(site.glob("*.dist-info/METADATA")):
        with path.open("rb") as file:
            text = file.read(METADATA_LIMIT).decode(errors="replace")
        for line in text.splitlines():
            if not line.strip():  # the description follows
                break
            if line[: len(FIELD)].lower() == FIELD and len(line) <= LONGEST:
                lines.append(line[len(FIELD) :].strip())
    return tuple(lines[:LINES])


def requirements_of(
    wheels: Mapping[str, Sequence[str]],
    requested: Iterable[str],
    known: Collection[str],
    runtime: Runtime,
) -> tuple[frozenset[str], Mapping[str, frozenset[str]]]:
    """Return (the packages that were requested, the packages that each wheel requires).

    `wheels` are requirements by name, `requested` those of the definition, and `known` the packages
    of the build and the base. Markers are evaluated for the runtime, with the extras that somebody
    asks for.
    """
    parsed = {name: _parsed(lines) for name, lines in wheels.items()}
    extras: defaultdict[str, set[str]] = defaultdict(set)
    direct = {_name(one): one for one in _parsed(requested)}
    for name, one in direct.items():
        extras[name] |= one.extras
    required: dict[str, frozenset[str]] = {}
    environment = environment_of(runtime)
    while True:
        before = sum(map(len, extras.values()))
        for name, requirements in parsed.items():
            applying = [r for r in requirements if _applies(r, environment, extras[name])]
            for one in applying:
                extras[_name(one)] |= one.extras
            required[name] = frozenset(map(_name, applying)) & frozenset(known) - {name}
        if sum(map(len, extras.values())) == before:
            return frozenset(direct) & frozenset(known), required


def _parsed(lines: Iterable[str]) -> list[Requirement]:
    requirements = []
    for line in lines:
        try:
            requirements.append(Requirement(line))
        except InvalidRequirement:  # of an old wheel, which uv had to accept
            continue
    return requirements


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _applies(
    requirement: Requirement, environment: Mapping[str, str], extras: Collection[str]
) -> bool:
    marker = requirement.marker
    if marker is None:
        return True
    return any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))
