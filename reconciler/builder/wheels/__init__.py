"""Wheels of a lock: downloaded or built, checked, and placed as entries of the share."""
