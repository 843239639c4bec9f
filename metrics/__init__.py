"""What the records say, for Prometheus and Slack."""
