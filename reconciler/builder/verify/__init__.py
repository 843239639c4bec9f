"""Verification of a build before anything live is touched."""
