"""Tests of the chart, its manifests, and the values for Airflow."""
