"""Metrics, notifications and commit statuses, derived from records and events."""
