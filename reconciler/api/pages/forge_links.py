"""Links from positions in the environments repo to the forge's pages."""

from __future__ import annotations

from urllib.parse import quote

from reconciler.core.definitions import Place


def file_link(template: str, revision: str, place: Place | None) -> str:
    """Return the URL of a position at a commit, or "" if there is none.

    `template` is a setting with {revision}, {path} and {line}, and alone decides the scheme, host
    and project: what was read from the environments repo is quoted, and may not climb out of its
    part of the path.
    """
    if place is None or not revision or not template.startswith("https://"):
        return ""
    if any(part in ("", ".", "..") for part in place.file.split("/")):
        return ""
    values = {
        "{revision}": quote(revision, safe=""),
        "{line}": str(place.line or 1),
        "{path}": quote(place.file),  # last: quoting leaves no braces that would be replaced
    }
    for name, value in values.items():
        template = template.replace(name, value)
    return template
