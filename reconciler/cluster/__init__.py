"""Kubernetes clusters: one way to reach each, used by the drivers and the builder."""
