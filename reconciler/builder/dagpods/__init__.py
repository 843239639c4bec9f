"""Parsing the DAGs of a release on Kubernetes with a candidate build, before the switch."""
