"""Checks of everything that Groundcrew depends on; each looks, changes nothing live, and says.

Used by `groundcrew doctor`. A check is a function that gives findings; `examine` runs them side by
side, each within a time limit.
"""
