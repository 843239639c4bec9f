"""Tests of the command line: doctor, init, terminal output, and the reference of commands."""
