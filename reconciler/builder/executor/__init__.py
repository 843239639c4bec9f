"""Execution of a build's commands: confined on this machine, or in Kubernetes Jobs."""
