"""Write the dashboards as JSON beside this file; `--check` reports stale ones instead."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.daemon import daemon
from deploy.grafana.fleet import fleet
from deploy.grafana.instance import instance

HERE = Path(__file__).parent


def dashboards() -> Mapping[str, str]:
    """Return the JSON of every dashboard, by file name."""
    documents = {}
    for name, make in (("fleet", fleet), ("instance", instance), ("daemon", daemon)):
        document = make().build()
        for number, panel in enumerate(document.panels or [], start=1):
            panel.id_val = number
        documents[f"{name}.json"] = json.dumps(document, cls=JSONEncoder, indent=2) + "\n"
    return documents


def main(words: list[str]) -> int:
    """Write the dashboards; return 1 if `--check` finds one that is not current, otherwise 0."""
    current = {path.name: path.read_text() for path in HERE.glob("*.json")}
    wanted = dict(dashboards())
    if "--check" in words:
        stale = sorted(n for n in current | wanted if current.get(n) != wanted.get(n))
        for name in stale:
            sys.stderr.write(f"deploy/grafana/{name} is not current: run `make generate`\n")
        return 1 if stale else 0
    for name in current.keys() - wanted.keys():
        (HERE / name).unlink()
    for name, text in wanted.items():
        (HERE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
