"""Demo of Groundcrew's main job with real components, on one machine."""
