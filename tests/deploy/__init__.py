"""What is installed on a cluster: the chart, its manifests, the values for Airflow."""
