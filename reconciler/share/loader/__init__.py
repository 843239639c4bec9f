"""Modules on PYTHONPATH of every instance: standard library only, Python 3.9 and newer."""
