"""Decision whether a folder is the share that the records belong to."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.reasons import Reason
from reconciler.share import marker
from reconciler.share.marker import Known


@pytest.mark.parametrize(
    "known", [Known("f" * 32), Known("f" * 32, has_builds=True), Known(has_builds=True)]
)
def test_an_empty_folder_is_not_the_share_of_records_that_know_one(
    tmp_path: Path, known: Known
) -> None:
    """By its id, or because they name builds; nothing is written below the mount point."""
    with pytest.raises(Stalled) as caught:
        marker.recognise(tmp_path, known)
    assert caught.value.reason == Reason.SHARE_MISSING
    assert list(tmp_path.iterdir()) == []


def test_a_share_is_known_by_its_marker_alone(tmp_path: Path) -> None:
    """Another one is refused, before anything starts and while the daemon runs."""
    share = marker.recognise(tmp_path, Known())
    assert marker.recognise(tmp_path, Known(share, has_builds=True)) == share
    marker.require(tmp_path, share)
    with pytest.raises(Stalled, match="is another share"):
        marker.recognise(tmp_path, Known("f" * 32))
    with pytest.raises(GroundcrewError, match="not the share any more"):
        marker.require(tmp_path, "f" * 32)
    (tmp_path / marker.FILE).unlink()
    with pytest.raises(GroundcrewError, match="not the share any more"):
        marker.require(tmp_path, share)
