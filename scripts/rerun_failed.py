"""Second try of the few tests of real servers that failed in a busy moment.

`python -m scripts.rerun_failed FILE` runs each of them alone, where FILE is the one that a run of
pytest wrote because of the variable GROUNDCREW_TEST_FAILURES. It exits with 0 and prints `flaky: N`
with the names if all of them pass now. It exits with 1 if one fails again, if more than three had
failed, or if one of them starts no server: unit and property tests must not fail by chance.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.harness.failures import Failures

MOST = 3  # largest number of flaky tests in one run
CERTAIN = ("tests/unit/", "tests/properties/")  # tests that start no servers
TESTS_FAILED = 1  # pytest's exit code of a complete run


def refusal(run: Failures) -> str:
    """Return the reason why the run has failed in any case, or ""."""
    if run.exit_code != TESTS_FAILED or not run.failed:
        return f"the tests did not come to an end (exit code {run.exit_code})"
    if run.skipped:
        return f"tests were skipped: {', '.join(run.skipped)}"
    if len(run.failed) > MOST:
        return f"{len(run.failed)} tests failed, which is more than {MOST}"
    certain = [name for name in run.failed if name.startswith(CERTAIN) or name in run.properties]
    if certain:
        return f"unit and property tests do not fail by chance: {', '.join(certain)}"
    return ""


def rerun(run: Failures, passes: Callable[[str], bool]) -> tuple[int, str]:
    """Return the exit code and the last line of output; `passes` runs one test."""
    if why := refusal(run):
        return 1, f"not tried again: {why}"
    again = [name for name in run.failed if not passes(name)]
    if again:
        return 1, f"failed again: {', '.join(again)}"
    return 0, f"flaky: {len(run.failed)} ({', '.join(run.failed)})"


def _passes(name: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-n", "0", "--tb=long", name]
    return subprocess.run(command, check=False).returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Run the failed tests again; return the exit code."""
    try:
        run = Failures.read(Path(arguments[0]))
    except (OSError, ValueError, TypeError):
        sys.stdout.write("not tried again: the tests wrote no list of failures\n")
        return 1
    code, line = rerun(run, _passes)
    sys.stdout.write(f"{line}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
