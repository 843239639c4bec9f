"""Names of modules in Airflow's configuration, such as that of a secrets backend.

The scheduler and the API server import them, whatever a build declares. A name too many only means
that a component is restarted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from reconciler.core.restarts import Layout

MODULE = re.compile(r"(?<![\w.])([A-Za-z_]\w{0,99})\.[A-Za-z_]")
IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([A-Za-z_]\w{0,99})", re.MULTILINE)
MOST = 1000  # names that are recorded
LIMIT = 1 << 20  # bytes of one file that are looked through
FILES = ("airflow.cfg", "webserver_config.py", "config/airflow_local_settings.py")


def layout_of(components: Iterable[str], texts: Iterable[str], *, runs_tasks: bool) -> Layout:
    """Return the layout of an instance whose configuration has these texts."""
    names = module_names(texts)
    parts = tuple(sorted(components))
    if len(names) > MOST:
        return Layout(parts, runs_tasks, unknown="its configuration may name very many modules")
    return Layout(parts, runs_tasks, names)


def module_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the outermost names of what may be modules in values of settings, or in Python."""
    names: set[str] = set()
    for text in texts:
        names.update(MODULE.findall(text), IMPORT.findall(text))
    return tuple(sorted(names))


def settings_in(home: Path) -> list[str]:
    """Return the texts of an Airflow home's configuration, without comments.

    Raises OSError if a file is there and cannot be read.
    """
    texts = []
    for name in FILES:
        try:
            with (home / name).open(encoding="utf-8", errors="replace") as file:
                lines = file.read(LIMIT).splitlines()
        except FileNotFoundError:
            continue
        texts.append("\n".join(line for line in lines if not line.lstrip().startswith("#")))
    return texts
