"""Warnings about environment variables that look like settings but are none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel

PREFIX = "GROUNDCREW_"
OTHERS = (
    "BUILD",
    "CA_FILE",
    "COMMENT_TOKEN",
    "COMPONENT",
    "CONFIG",
    "DEMO_CACHE",
    "FAILPOINT",
    "FAILPOINTS_FILE",
    "FAILPOINT_FREEZES",
    "LOCAL_LIMIT",
    "PACKAGE",
    "PICTURES",
    "PROOF",
    "PYTHON",
    "RUNTIMES",
    "SERVER",
    "TEST_FAILURES",
    "TESTS_STRICT",
    "TOKEN",
    "TOKEN_FILE",
)
"""Variables that other parts read: the loader, the demo, examples of CI, the tests."""
SERVICE = re.compile(r"(^|_)(SERVICE_HOST|SERVICE_PORT|PORT)(_|$)")
"""Variables that Kubernetes sets in every pod for a Service called groundcrew."""
CLOSE = 0.8


def misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, the variable that is probably meant or "") of those that no setting reads."""
    own_names = sorted(name for name in names if name.upper().startswith(PREFIX))
    if not own_names:
        return
    from reconciler.settings import Settings

    known = list(_names(Settings, ""))
    sections = {one.partition("__")[0] for one in known if "__" in one}
    for name in own_names:
        own = name.upper().removeprefix(PREFIX)
        if own in known or own in OTHERS:
            continue
        if "__" in own and own.partition("__")[0] in sections:
            continue  # the settings themselves reject a wrong key of a section
        if SERVICE.search(own):
            continue
        close = get_close_matches(own, known, 1, CLOSE)
        yield name, PREFIX + close[0] if close else ""


def _names(model: type[BaseModel], before: str) -> Iterator[str]:
    from pydantic import BaseModel

    for key, field in model.model_fields.items():
        name = f"{before}{key.upper()}"
        yield name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _names(kind, f"{name}__")
