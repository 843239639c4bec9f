"""`make bench [NAME=…]`: run the benchmarks, print a table, write benchmarks/results.json."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import builds, overhead
from benchmarks.rows import Row, show, write

ALL = {"overhead": overhead.run, "builds": builds.run}


def main() -> int:
    """Run what was asked for; 1 if a target was missed, 2 if there is no such benchmark."""
    names = sys.argv[1:] or list(ALL)
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in names:
        print(f"running {name} …", file=sys.stderr)
        rows += ALL[name]()
    show(rows)
    write(rows, Path(__file__).parent / "results.json")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
