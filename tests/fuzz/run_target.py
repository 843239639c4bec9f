"""Command `python -m tests.fuzz.run_target <target> <libFuzzer's options>`: fuzzes one target."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gitsource", "reconciler", "installer", "packaging"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
