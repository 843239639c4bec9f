"""Known vulnerabilities of packages, queried from OSV by name and version.

Names of in-repo packages and of packages from a team's private indexes are confidential: they are
never sent. If OSV does not respond, the plan says so, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

import httpx
from pydantic import Field

from reconciler.cli.preview.comparison import Advisory, InstanceChange, Preview
from reconciler.documents import Document, Rows, parse
from reconciler.http_client import Client

OSV = "https://api.osv.dev"
BATCH = 500  # queries per request; OSV accepts 1,000
TIMEOUT = 20.0
Pair = tuple[str, str]


class _Vulnerability(Document):
    id: str


class _Result(Document):
    vulns: Rows[_Vulnerability] = Field(default_factory=list)


class _Answer(Document):
    """Response of OSV to a batch of queries."""

    results: Rows[_Result]


def with_advisories(
    preview: Preview, private: Mapping[str, frozenset[str]], service: str = OSV
) -> Preview:
    """Return the preview with the advisories of added and changed packages; "off" skips that."""
    if service == "off":
        return replace(preview, advisories="not asked for")
    pairs = sorted({pair for change in preview.changes for pair in _brought(change, private)})
    try:
        known = ask(pairs, service) if pairs else {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return replace(preview, advisories=f"{service} does not answer ({type(error).__name__})")
    return replace(
        preview, changes=tuple(_with(change, known, private) for change in preview.changes)
    )


def _brought(change: InstanceChange, private: Mapping[str, frozenset[str]]) -> list[Pair]:
    """Return the versions that the change introduces, and those that it removes."""
    if change.packages is None:
        return []
    globs = private.get(change.environment, frozenset())
    packages = change.packages
    pairs = [*packages.added.items(), *packages.removed.items()]
    for name, (before, after) in packages.changed.items():
        pairs += [(name, before), (name, after)]
    return [p for p in pairs if not any(fnmatchcase(p[0], glob) for glob in globs)]


def _with(
    change: InstanceChange, known: Mapping[Pair, list[str]], private: Mapping[str, frozenset[str]]
) -> InstanceChange:
    if change.packages is None:
        return change
    after = dict(change.packages.added) | {n: v for n, (_, v) in change.packages.changed.items()}
    before = {n: v for n, (v, _) in change.packages.changed.items()}
    wanted = [pair for pair in _brought(change, private) if after.get(pair[0]) == pair[1]]
    advisories = [
        Advisory(mark, name, version, mark not in known.get((name, before.get(name, "")), []))
        for name, version in wanted
        for mark in known.get((name, version), [])
    ]
    return replace(change, advisories=tuple(advisories))


def ask(pairs: list[Pair], service: str) -> dict[Pair, list[str]]:
    """Return ids of advisories for each (name, version). Raises httpx's errors, or ValueError."""
    ids: dict[Pair, list[str]] = {}
    with Client(base_url=service, timeout=TIMEOUT) as client:
        for start in range(0, len(pairs), BATCH):
            part = pairs[start : start + BATCH]
            queries = [{"package": {"name": n, "ecosystem": "PyPI"}, "version": v} for n, v in part]
            answer = client.post("/v1/querybatch", json={"queries": queries})
            answer.raise_for_status()
            results = parse(_Answer, answer.content, f"the answer of {service}").results
            for pair, result in zip(part, results, strict=True):
                ids[pair] = sorted(v.id for v in result.vulns)
    return ids
