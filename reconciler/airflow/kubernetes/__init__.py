"""Airflow on Kubernetes, from the official Helm chart: found by its labels, never by name."""
