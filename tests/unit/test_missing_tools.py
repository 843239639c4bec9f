"""Tests whose program is not installed: they are skipped, and say what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
INSTALLER = ROOT / "scripts" / "install-test-tools"
HOME = {"HOME": os.environ.get("HOME", "/")}


def fake(folder: Path, name: str, script: str) -> None:
    """Write an executable shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def install(path: Path, strict: str = "") -> subprocess.CompletedProcess[str]:
    """Run the installer with the programs of one folder only."""
    return subprocess.run(
        ["/bin/sh", str(INSTALLER)],
        env={"PATH": str(path), "GROUNDCREW_TESTS_STRICT": strict},
        capture_output=True,
        text=True,
        timeout=60,
    )


def rules_tests(path: Path, strict: str = "") -> subprocess.CompletedProcess[str]:
    """Run the tests of the alerting rules with the programs of one folder only."""
    rules = "tests/monitoring/test_rules.py"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-rs", "-p", "no:cacheprovider", rules],
        cwd=ROOT,
        env={"PATH": str(path), "GROUNDCREW_TESTS_STRICT": strict, **HOME},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_test_without_its_program_is_skipped_with_the_package(tmp_path: Path) -> None:
    """Without promtool nothing fails, and the reason of each skip names its package."""
    done = rules_tests(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout.splitlines()[-1]
    assert "promtool is not installed: apt-get install prometheus" in done.stdout


def test_program_missing_midway_is_a_skip_too(tmp_path: Path) -> None:
    """A test that has already run promtool is skipped when it reaches amtool."""
    fake(tmp_path, "promtool", "echo SUCCESS")
    done = rules_tests(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "amtool is not installed: apt-get install prometheus-alertmanager" in done.stdout
    assert "promtool is not installed" not in done.stdout


def test_strict_run_fails_without_a_program(tmp_path: Path) -> None:
    """Nothing is skipped unnoticed if everything has to run."""
    done = rules_tests(tmp_path, strict="1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "skipped, and that is not allowed here" in done.stdout


def installed_packages() -> set[str]:
    """Return the packages that the installer names."""
    lines = [line for line in INSTALLER.read_text().splitlines() if line.startswith("packages=")]
    packages = {
        word.strip('"') for line in lines for word in line.removeprefix("packages=").split()
    }
    return packages - {"$packages"}


def test_every_package_of_a_skip_is_installed_by_the_script() -> None:
    """The script and the reasons for skips name the same packages."""
    assert set(PACKAGES.values()) <= installed_packages()


def test_script_and_node_build_agree_on_packages() -> None:
    """Packages that `make node` requires are in the script's list."""
    lines = (ROOT / "scripts" / "node" / "build").read_text().splitlines()
    (needed,) = (line for line in lines if line.startswith("packages="))
    assert set(needed.removeprefix("packages=").strip('"').split()) <= installed_packages()


@pytest.mark.parametrize("installed", [True, False])
def test_user_without_rights_gets_one_line(tmp_path: Path, installed: bool) -> None:
    """Missing packages make one line with the command; nothing is printed if all are there."""
    fake(tmp_path, "dpkg-query", "echo installed" if installed else "exit 1")
    fake(tmp_path, "id", "echo 1000")
    done = install(tmp_path)
    assert done.returncode == 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == (0 if installed else 1)
    assert installed or "apt-get install git curl bubblewrap" in lines[0]


@pytest.mark.parametrize("strict", ["", "1"])
def test_failing_apt_get_stops_a_strict_run_only(tmp_path: Path, strict: str) -> None:
    """A machine without a network still runs the tests that it can; CI stops at once."""
    fake(tmp_path, "dpkg-query", "exit 1")
    fake(tmp_path, "id", "echo 0")
    fake(tmp_path, "env", 'shift; exec "$@"')
    fake(tmp_path, "apt-get", "exit 100")
    done = install(tmp_path, strict)
    assert done.returncode == (1 if strict else 0)
    assert "apt-get could not install some packages" in done.stderr
    assert ("are skipped" in done.stderr) is not bool(strict)
