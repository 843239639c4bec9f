"""Typed reader of the requirements in a build's SBOM (CycloneDX)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from reconciler.builder.sbom_properties import BASE_REQUIREMENT, COMPLETE
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Document, Malformed, Rows, parse

LIMIT = 8 << 20  # bytes


class Property(Document):
    """Property of a component."""

    name: str
    value: str = ""


class Component(Document):
    """Package of the build, or the build itself."""

    name: str
    ref: str = Field(alias="bom-ref")
    properties: Rows[Property] = Field(default_factory=list)


class Dependency(Document):
    """Requirements of one component."""

    ref: str
    requires: Rows[str] = Field(default_factory=list, alias="dependsOn")


class Metadata(Document):
    """The build itself."""

    component: Component


class Bom(Document):
    """SBOM of a build."""

    metadata: Metadata
    components: Rows[Component] = Field(default_factory=list)
    dependencies: Rows[Dependency] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sbom:
    """Packages that the definition requests, and those that each package requires."""

    requested: tuple[str, ...]
    required: Mapping[str, tuple[str, ...]]


def read_sbom(data: bytes) -> Sbom | None:
    """Return the requirements in an SBOM; None if it is of a version that did not record them."""
    try:
        bom = parse(Bom, data, "sbom.cdx.json", LIMIT)
    except Malformed as error:
        raise Stalled(Reason.SHARE_CORRUPT, str(error)) from None
    names = {one.ref: one.name for one in bom.components}
    edges = {one.ref: [names[r] for r in one.requires if r in names] for one in bom.dependencies}
    build = bom.metadata.component
    if not any(one.name == COMPLETE for one in build.properties):
        return None
    return Sbom(
        (*edges.get(build.ref, []), *_of_base(build)),
        {one.name: (*edges.get(one.ref, []), *_of_base(one)) for one in bom.components},
    )


def _of_base(component: Component) -> list[str]:
    return [one.value for one in component.properties if one.name == BASE_REQUIREMENT]
