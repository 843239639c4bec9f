"""Fuzzing of everything that parses what others wrote."""
