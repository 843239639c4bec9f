"""Locks of the container image: complete, hashed, and in step with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parents[2]
LOCKS = HERE / "deploy" / "image"
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
RENEW = "run `make lock`"


def pins(name: str) -> dict[str, str]:
    """Return the version of each project in a lock."""
    return dict(PIN.findall((LOCKS / name).read_text()))


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("requirements.lock", PROJECT["project"]["optional-dependencies"]["postgresql"]),
        ("requirements.lock", PROJECT["project"]["optional-dependencies"]["forges"]),
        ("build.lock", PROJECT["build-system"]["requires"]),
    ],
    ids=["runtime", "postgresql", "forges", "build"],
)
def test_a_lock_has_all_that_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    """A new or changed requirement is not forgotten in the image."""
    pinned = pins(lock)
    for requirement in map(Requirement, wanted):
        assert requirement.name in pinned, f"{requirement.name} is not in {lock}: {RENEW}"
        version = pinned[requirement.name]
        assert version in requirement.specifier, f"{requirement} is {version} in {lock}: {RENEW}"


@pytest.mark.parametrize("lock", ["requirements.lock", "build.lock"])
def test_every_pin_has_hashes_and_no_place(lock: str) -> None:
    """The installed packages are the locked ones, whichever index they come from."""
    text = (LOCKS / lock).read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(pins(lock)) > 3
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in text
    assert "index" not in re.sub(r"^ .*", "", text, flags=re.MULTILINE)


def test_what_builds_the_image_is_what_the_project_asks_for() -> None:
    """`build.in` is a copy for the resolver, which does not read `build-system`."""
    asked = (LOCKS / "build.in").read_text().split()
    assert asked == PROJECT["build-system"]["requires"]
