"""Soak test: versions are committed while the daemon is killed and its environment fails."""
