"""Work of the daemon done in a checkout, before a commit is pushed: build, export, venv.

`bases` finds or makes the bases to build for, `maker` resolves, builds and verifies with the
daemon's own builder, and `locks` writes what was resolved for other tools.
"""
