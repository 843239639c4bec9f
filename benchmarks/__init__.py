"""Whole-process figures beside what a user would do instead."""
