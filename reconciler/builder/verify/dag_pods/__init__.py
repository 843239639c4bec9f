"""Checks of a release's DAGs on Kubernetes: parsed with a candidate build before the switch."""
