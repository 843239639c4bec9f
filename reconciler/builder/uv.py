"""Path of the uv that this program uses: pinned in its own dependencies."""

from __future__ import annotations

import shutil

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason


def uv_path() -> str:
    """Return the uv that is installed beside this program."""
    found = shutil.which("uv") or _own_uv()
    if found is None:
        raise Stalled(Reason.UV_MISSING, "uv is not installed; reinstall groundcrew")
    return found


def _own_uv() -> str | None:
    from uv import find_uv_bin

    try:
        return str(find_uv_bin())
    except FileNotFoundError:
        return None
