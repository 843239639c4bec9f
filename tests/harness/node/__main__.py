"""Command that makes the Airflow images for tests on a real node."""

from __future__ import annotations

import sys

from tests.harness.node.airflow_image import ALWAYS
from tests.harness.node.programs import missing


def _main() -> int:
    if lacking := missing():
        sys.stderr.write("this machine cannot run a node:\n" + "\n".join(lacking) + "\n")
        return 2
    for image in ALWAYS:
        sys.stdout.write(f"an image is there: {image.archive()}\n")
    return 0


sys.exit(_main())
