"""Command `python -m tests.fuzz [--seconds 30] [targets]` of `make fuzz`; runs two at a time.

An input that breaks a target is written to tests/fuzz/crashes/<target>/, where the tests find it.
The collected inputs are kept in .cache/fuzz, so that the next run continues from there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CRASHES = Path(__file__).with_name("crashes")
CORPUS = ROOT / ".cache" / "fuzz"
JOBS = 2
LONGEST_INPUT = 20_000  # bytes
SLOWEST_INPUT = 60  # seconds; reaching it is an error, however busy the machine is
MEMORY = 2048  # megabytes
EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


def fuzz(target: str, seconds: int, seed: int, inputs: list[bytes]) -> tuple[int, str]:
    """Fuzz a target; return the exit code and a message. Seed 0 is another one each time."""
    corpus, crashes = CORPUS / target, CRASHES / target
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs):
        (corpus / f"seed-{number}").write_bytes(data)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.run_target",
            target,
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-max_len={LONGEST_INPUT}",
            f"-timeout={SLOWEST_INPUT}",
            f"-rss_limit_mb={MEMORY}",
            f"-artifact_prefix={crashes}/",
            "-print_final_stats=1",
            str(corpus),
            str(crashes),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if not any(crashes.iterdir()):
        crashes.rmdir()
    executed = EXECUTED.search(done.stderr)
    if done.returncode != 0:
        return done.returncode, f"{target}: broken\n{(done.stdout + done.stderr)[-4000:]}"
    return 0, f"{target}: {executed[1] if executed else 'no'} inputs, none of which broke it"


def main() -> int:
    """Fuzz the targets; return 1 if one was broken."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="repeats a run, as far as time allows")
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    given = parser.parse_args()
    if find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed: it has wheels for x86-64 Linux only\n")
        return 1
    inputs, broken = seeds(), False
    with ThreadPoolExecutor(JOBS) as pool:
        names = given.targets or list(TARGETS)
        seconds, seed = given.seconds, given.seed
        for code, message in pool.map(lambda n: fuzz(n, seconds, seed, inputs[n]), names):
            broken = broken or code != 0
            sys.stdout.write(message + "\n")
            sys.stdout.flush()
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
