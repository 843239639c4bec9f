"""`make bench [NAME=…]`: run benchmarks, print a table, write RESULTS.md and results.json."""

from __future__ import annotations

import sys

from benchmarks.results import Run, keep
from benchmarks.rows import Row, show
from benchmarks.suite import ALL


def main() -> int:
    """Run the requested benchmarks; return 1 if a target was missed, 2 if a name is unknown."""
    names = sys.argv[1:] or list(ALL)
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in names:
        print(f"running {name} …", file=sys.stderr)
        new_rows = ALL[name].run()
        about = (ALL[name].__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
        keep(Run(name, about, tuple(new_rows)), tuple(ALL))
        rows += new_rows
    show(rows)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
