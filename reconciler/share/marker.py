"""The marker of a share: the file by which it is told from an empty mount point.

It holds an id that the records know too. It is written once, when a share is used for the first
time, and never changed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.errors import Away, Stalled
from reconciler.core.reasons import Reason
from reconciler.failpoints import failpoint
from reconciler.share.atomic import make_directory, sync_directory, temporary, write_file
from reconciler.share.entries import read_document
from reconciler.share.schemas import MarkerDocument

FILE = "groundcrew-share.json"
PARTS = ("store", "builds", "instances")  # what a share of an earlier version has
ID = re.compile(r"^[0-9a-f]{32}$")
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
MOUNT = "mount the share there and start the daemon again"
ADOPT = "`groundcrew adopt-share`"


@dataclass(frozen=True, slots=True)
class Known:
    """Knowledge of the records about their share: its id, "" before it was first used.

    `has_builds`: they name builds, so that there must be a share somewhere.
    """

    share: str = ""
    has_builds: bool = False


def read(root: Path) -> str:
    """Return the id of the share at `root`, "" if it has no marker; raises Retryable."""
    marker = read_document(root / FILE, MarkerDocument)
    return marker.id if marker is not None and ID.match(marker.id) else ""


def is_used(root: Path) -> bool:
    """Return True if the folder has what a share has, of this version or an earlier one."""
    return bool(read(root)) or any((root / part).is_dir() for part in PARTS)


def recognise(root: Path, known: Known) -> str:
    """Return the id of the share at `root`; a folder that may be a new one becomes a share.

    Raises Stalled("ShareMissing") if it is not the share that the records belong to, or OSError.
    """
    share_id = read(root)
    if share_id and share_id == (known.share or share_id):
        return share_id
    if share_id:
        raise Stalled(
            Reason.SHARE_MISSING,
            f"{root} is another share ({share_id[:8]}) than the one that the records belong to "
            f"({known.share[:8]}); mount that one, or, if this one has taken its place, say so "
            f"with {ADOPT}",
        )
    if known.share:
        raise Stalled(
            Reason.SHARE_MISSING,
            f"{root} does not have the marker {FILE} of the share that the records belong to "
            f"({known.share[:8]}): it is probably not mounted; {MOUNT}, or, if the share is lost "
            f"for good or was restored without its marker, say so with {ADOPT}",
        )
    if known.has_builds and not is_used(root):
        raise Stalled(
            Reason.SHARE_MISSING,
            f"{root} has nothing on it, though the records name builds: it is probably not "
            f"mounted; {MOUNT}, or, if the share is lost for good, say so with {ADOPT}",
        )
    return create(root)


def create(root: Path) -> str:
    """Write a marker, unless another daemon was faster; return the id that counts."""
    make_directory(root)
    path, temp = root / FILE, temporary(root / FILE)
    write_file(temp, json.dumps({"schema": 1, "id": uuid.uuid4().hex}).encode())
    try:
        failpoint("share.marker.before-link")
        os.link(temp, path)
    except FileExistsError:
        if not read(root):  # damaged, and no share is known by it
            temp.rename(path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        temp.rename(path)
    finally:
        temp.unlink(missing_ok=True)
    sync_directory(root)
    return read(root)


def require(root: Path, share: str) -> None:
    """Raise Away("ShareMissing") unless the share at `root` is the one with that id."""
    if read(root) == share:
        return
    raise Away(
        Reason.SHARE_MISSING,
        f"{root} is not the share any more: its marker {FILE} is missing or another one; "
        f"see that the share is mounted",
    )
