"""Builds in Jobs: a workshop whose commands run in a pod with the instance's own image."""
