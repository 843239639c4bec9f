"""HTTP: metrics, health, webhooks and the read API."""
