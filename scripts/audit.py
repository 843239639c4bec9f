"""Audit what the image installs: `make audit` and CI run it.

Each pin of the locks is compared with the advisories of the package index (pip-audit), and with
what the index says of its releases: one that was withdrawn or whose files have other hashes is a
finding. Ends with 1 if there is one. An index that does not serve advisories, such as a mirror, is
told; it fails nothing, as nothing is known then.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LOCKS = tuple(ROOT / "deploy" / "image" / name for name in ("requirements.lock", "build.lock"))
TIMEOUT = 600.0  # seconds for one lock
YANKED = re.compile(r"^warning: `([^`]+)` is yanked(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Audit:
    """Findings in one lock, and how many of its pins have been compared with advisories."""

    findings: tuple[str, ...]
    audited: int
    pins: int


def read_advisories(text: str) -> Audit:
    """Return what pip-audit's JSON says. Raises ValueError or KeyError for anything else."""
    rows = json.loads(text)["dependencies"]
    findings = []
    for row in rows:
        for one in row.get("vulns", []):
            mended = ", ".join(one["fix_versions"]) or "no version yet"
            findings.append(f"{row['name']} {row['version']}: {one['id']}, mended in {mended}")
    audited = sum("skip_reason" not in row for row in rows)
    return Audit(tuple(findings), audited, len(rows))


def read_releases(code: int, output: str) -> tuple[str, ...]:
    """Return what uv's dry run says of releases that the index has withdrawn or changed."""
    yanked = tuple(f"{name} was withdrawn{why}" for name, why in YANKED.findall(output))
    return yanked if code == 0 else (*yanked, f"cannot be installed: {output.strip()[-600:]}")


def audit(lock: Path) -> Audit:
    """Audit one lock."""
    advisories = subprocess.run(
        [
            BIN / "pip-audit",
            "--requirement",
            lock,
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    known = read_advisories(advisories.stdout)
    with tempfile.TemporaryDirectory(prefix="groundcrew-audit-") as folder:
        releases = subprocess.run(
            [
                BIN / "uv",
                "pip",
                "install",
                "--dry-run",
                "--no-deps",
                "--require-hashes",
                "--target",
                folder,
                "--requirement",
                lock,
            ],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    withdrawn = read_releases(releases.returncode, releases.stdout + releases.stderr)
    return Audit((*known.findings, *withdrawn), known.audited, known.pins)


def main() -> int:
    """Audit both locks and print what was found."""
    broken = False
    for lock in LOCKS:
        result = audit(lock)
        name = lock.relative_to(ROOT)
        sys.stdout.write(f"{name}: {result.audited} of {result.pins} pins compared with advisories")
        sys.stdout.write(f", {len(result.findings)} findings\n")
        if not result.audited:
            sys.stdout.write("note: this package index serves no advisories; run it elsewhere\n")
        for finding in result.findings:
            sys.stdout.write(f"  {finding}\n")
        broken = broken or bool(result.findings)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
