"""Resolution of a recipe against a base: the lock, and uv's errors in our words."""
