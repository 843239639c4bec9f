"""Builds in Jobs: a executor whose commands run in a pod with the instance's own image."""
