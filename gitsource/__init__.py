"""Environments repo: its mirror, a revision's blobs, its definitions, and triggers."""
