"""The audit of the image's locks: what its tools say becomes findings."""

from __future__ import annotations

import json

import pytest

from scripts.audit import read_advisories, read_releases

SOUND = {"name": "acme", "version": "1.0", "vulns": []}
VULNERABLE = {
    "name": "acme-web",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": [], "description": ""}],
}
SKIPPED = {"name": "acme-own", "skip_reason": "Dependency not found on PyPI"}


def test_an_advisory_is_a_finding_with_the_version_that_mends_it() -> None:
    audit = read_advisories(json.dumps({"dependencies": [SOUND, VULNERABLE, SKIPPED]}))
    assert audit.findings == ("acme-web 2.0: PYSEC-1, mended in 2.1",)
    assert (audit.audited, audit.pins) == (2, 3)


def test_an_index_without_advisories_has_audited_nothing() -> None:
    audit = read_advisories(json.dumps({"dependencies": [SKIPPED]}))
    assert (audit.findings, audit.audited, audit.pins) == ((), 0, 1)


def test_an_answer_that_is_none_is_no_clean_audit() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        read_advisories("")


def test_a_withdrawn_release_is_a_finding() -> None:
    output = 'Would install 1 package\nwarning: `acme==1.0` is yanked (reason: "broken")\n'
    assert read_releases(0, output) == ('acme==1.0 was withdrawn (reason: "broken")',)


def test_a_pin_with_other_hashes_is_a_finding() -> None:
    (finding,) = read_releases(1, "error: hash mismatch for acme")
    assert finding == "cannot be installed: error: hash mismatch for acme"
