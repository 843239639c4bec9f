"""Decisions without effects: standard library only, no clock, no randomness, no I/O."""
