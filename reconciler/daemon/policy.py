"""Policy of decisions, derived from the settings."""

from __future__ import annotations

from reconciler.core.world import Policy
from reconciler.settings import ClusterSettings, Settings


def policy_of(settings: Settings) -> Policy:
    """Return the limits that decisions observe."""
    return Policy(
        prune_fraction=settings.prune_fraction,
        parallel_builds=settings.builder.parallel,
        parallel_activations=settings.activation.parallel,
        retry_first=settings.activation.retry_first,
        retry_most=settings.activation.retry_most,
        builds_at=settings.kubernetes.builds_at,
        activations_at=settings.kubernetes.activations_at,
        cluster_builds=ClusterSettings().parallel_builds,
        cluster_activations=ClusterSettings().parallel_activations,
    )
