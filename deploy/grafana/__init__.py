"""The dashboards, as code: `python -m deploy.grafana` writes them beside this file as JSON."""
