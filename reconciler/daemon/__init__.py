"""Daemon loop that connects the packages: observe, decide, record, act, record the outcome."""
