"""The environments repo: its mirror, the blobs of a revision, the definitions in them, and triggers."""
