"""One real node for all tests of a session; `make node` builds its prerequisites."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.node import Node
from tests.harness.node.programs import missing, programs
from tests.harness.node.results import Results
from tests.harness.node.site import NodeSite

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Write the results to a file if the environment names one."""
    if path := os.environ.get("GROUNDCREW_NODE_RESULTS"):
        config.pluginmanager.register(Results(Path(path)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests here: a node takes minutes, and only one fits on a machine."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """Yield the node; its folders are visible to pods, and so cannot be below pytest's own."""
    lacking = missing()
    if lacking:
        pytest.fail("this machine cannot run a node:\n" + "\n".join(lacking), pytrace=False)
    with (
        tempfile.TemporaryDirectory(prefix="groundcrew-node-") as folder,
        Node(Path(folder), programs()) as node,
    ):
        yield node


@pytest.fixture(scope="session")
def site(node: Node) -> Iterator[NodeSite]:
    """Return an Airflow 3 release whose pods run the image of 310 distributions."""
    with (
        tempfile.TemporaryDirectory(prefix="groundcrew-site-") as folder,
        NodeSite(node, Path(folder), AirflowImage("3.2.2", "3.12")) as site,
    ):
        yield site
