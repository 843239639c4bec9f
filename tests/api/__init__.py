"""Tests of the API under /api/v1, its OpenAPI document, access, and event streams."""
