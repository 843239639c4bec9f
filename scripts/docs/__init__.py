"""Generators of documentation pages, and hooks for building the documentation site."""
