"""Checks of everything that Groundcrew depends on, used by `groundcrew doctor`.

A check is a function that yields findings and changes nothing live; `examine` runs checks in
parallel, each with a time limit.
"""
