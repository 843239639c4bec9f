"""Locks that uv does not write are refused in words: code of a build may have written them."""

from __future__ import annotations

import pytest

from reconciler.builder.resolve.pylock import read_lock
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

SHA = "0" * 64
GOOD = f"""
lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "Acme_Tools"
version = "1.0"
index = "https://x/simple/"
[[packages.wheels]]
url = "https://x/acme_tools-1.0-py3-none-any.whl"
upload-time = 2024-01-01T00:00:00Z
hashes = {{ sha256 = "{SHA}" }}

[[packages]]
name = "own"
directory = {{ path = "teams/red/own" }}
tool = {{ groundcrew = {{ tree = "t", sha256 = "{SHA}" }} }}
"""


def test_a_lock_is_read() -> None:
    tools, own = read_lock("red", GOOD)
    assert (tools.key, tools.version, tools.address) == ("acme-tools", "1.0", "")
    assert tools.wheels[0].filename == "acme_tools-1.0-py3-none-any.whl"
    assert (own.address, own.tool.groundcrew.sha256) == ("directory", SHA)
    assert read_lock("red", 'lock-version = "1.0"') == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("packages", "not TOML"),
        ("packages = 3", "packages"),
        ("x = " + "[" * 5000, "nested too deeply"),
        ("[[packages]]", "packages.0.name"),
        ("[[packages]]\nname = 3", "packages.0.name"),
        ('[[packages]]\nname = "../../x"', "packages.0.name"),
        ('[[packages]]\nname = "a"\nwheels = {}', "packages.0.wheels"),
        ('[[packages]]\nname = "a"\nwheels = [{url = "x"}]', "packages.0.wheels.0.hashes"),
        (GOOD.replace(SHA, "../" * 21 + "x"), "sha256"),
        (GOOD.replace(SHA, SHA.upper().replace("0", "A")), "sha256"),
        ('[[packages]]\nname = "a"\ndirectory = "x"', "packages.0.directory"),
    ],
)
def test_any_other_form_is_refused(text: str, words: str) -> None:
    """A digest becomes a path in a cache; the message says where the mistake is."""
    with pytest.raises(Stalled, match="uv does not write such a lock") as caught:
        read_lock("red", text)
    assert caught.value.reason == Reason.LOCK_UNREADABLE
    assert words in caught.value.message
