"""One real control plane for all tests here; each test uses its own namespaces.

It ends with the last of them: an idle one would go on using a tenth of a core.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.harness.control_plane import assets
from tests.harness.job_builder import JobBench
from tests.harness.laboratory import Lab, laboratory

HERE = Path(__file__).parent
MISSING = "no Kubernetes control plane on this machine: `make envtest` makes one"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests here as slow, since they need the control plane."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a missing control plane in one line for all tests here."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and MISSING in report.longrepr[2]:
        report.longrepr = (str(HERE), 0, report.longrepr[2])
    return report


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield the laboratory: control plane, nodes and kubelets."""
    programs = assets()
    if programs is None:
        pytest.skip(MISSING)
    with laboratory(tmp_path_factory.mktemp("lab"), programs) as lab:
        yield lab


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[JobBench]:
    with JobBench(lab, tmp_path) as bench:
        yield bench


@pytest.fixture
def space(lab: Lab) -> Iterator[str]:
    """Yield a namespace for this test only."""
    name = lab.namespace("lab")
    yield name
    lab.drop(name)
