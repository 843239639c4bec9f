"""The environments repo: its mirror, a revision's blobs, the definitions in them, triggers."""
