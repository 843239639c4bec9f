"""The daemon that turns commits in the environments repo into healthy Airflow instances."""
