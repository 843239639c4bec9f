"""Parameters in the addresses of pages. What is not a number counts as absent."""

from __future__ import annotations

from starlette.requests import Request


def page_number(request: Request) -> int:
    """Return the page of a table, counted from 1."""
    return whole(request.query_params.get("page", "1")) or 1


def whole(text: str) -> int:
    """Return a number from a query, or 0 if it is not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
