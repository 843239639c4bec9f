"""Access to Kubernetes clusters, used by the drivers and the builder."""
