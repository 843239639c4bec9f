"""The proof that a component's first process leaves of what its loader has loaded.

The daemon reads it: on Kubernetes it is a line of the pod's log, elsewhere a file named by the
process id below the folder for packs. The loader imports this only where a proof is due. Standard
library only, Python 3.9 and newer.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False  # what type checkers take for true: typing costs an import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MARK = "groundcrew: proof "  # how its line begins; reconciler/airflow/proof.py reads it
WORDS = 2000  # characters of what the loader said


def leave(
    proof: dict[str, Any],
    tops: list[str],
    make: Callable[[str, int], None],
    ours: Callable[[str], bool],
) -> None:
    """Write one line to stderr and, outside Kubernetes, a file in the first folder that takes it.

    `make` creates a folder with a mode, `ours` says whether nobody else can have written there.
    """
    line = json.dumps({**proof, "said": proof["said"][:WORDS]})
    sys.stderr.write("%s%s\n" % (MARK, line))
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return
    for top in tops:
        top = os.path.join(top, "groundcrew-%d" % os.getuid())
        folder = os.path.join(top, "proofs")
        try:
            make(os.path.dirname(top), 0o755)
            make(top, 0o700)
            make(folder, 0o700)
            if ours(top) and ours(folder):
                _write(folder, line)
                return
        except OSError:
            continue


def _write(folder: str, line: str) -> None:
    """Write this process's file, and remove those of ended processes."""
    if os.path.isdir("/proc/self"):
        for name in os.listdir(folder):
            if not os.path.isdir("/proc/" + name.lstrip(".")):
                os.unlink(os.path.join(folder, name))
    pid = str(os.getpid())
    temp = os.path.join(folder, "." + pid)
    with open(temp, "w") as file:
        file.write(line)
    os.rename(temp, os.path.join(folder, pid))
