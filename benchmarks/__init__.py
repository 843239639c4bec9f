"""Benchmarks of whole processes, compared with what a user would do without Groundcrew."""
