"""The folder of the records on a volume, which belongs to root and is written by its group."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.daemon.wiring import make_private

NOBODY = 65534


def _as_nobody(folder: Path) -> int:
    """Return the exit code of a process of another user than root that makes a folder private."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            make_private(folder)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_folder_of_this_user_is_closed_to_others(tmp_path: Path) -> None:
    """Whatever its mode was."""
    tmp_path.chmod(0o777)
    make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("folder", "code"), [("/tmp", 0), ("/usr", 1)])
def test_a_folder_of_root_must_be_writable(folder: str, code: int) -> None:
    """Its mode stays, as only its owner may change that."""
    before = Path(folder).stat().st_mode
    assert _as_nobody(Path(folder)) == code
    assert Path(folder).stat().st_mode == before
