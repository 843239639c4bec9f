"""The demo: the main job on real parts, on one machine."""
