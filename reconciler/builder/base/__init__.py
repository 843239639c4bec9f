"""Inventory of an instance's base, by its own interpreter or in a Job with its image."""
