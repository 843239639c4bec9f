"""A soak: versions are committed while the daemon is killed and its surroundings fail."""
