"""Airflow on Kubernetes, from the official Helm chart: identified by labels, never by name."""
