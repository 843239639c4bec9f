"""Builds in Jobs: a workshop whose commands run in a pod of the instance's own image."""
