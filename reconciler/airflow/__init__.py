"""Drivers that inspect, drain, restart and probe Airflow instances."""
