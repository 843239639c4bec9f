"""Names of the properties with which an SBOM says what it has no components for."""

from __future__ import annotations

BASE_REQUIREMENT = "groundcrew:base-requirement"
"""Property of a component: a package of the base that it requires."""
COMPLETE = "groundcrew:requirements"
"""Property of a build: its SBOM says for each package what that requires."""
