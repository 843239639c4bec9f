"""Drivers: how an Airflow instance is inspected, drained, restarted and probed."""
