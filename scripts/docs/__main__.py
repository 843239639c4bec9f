"""Generated pages: `python -m scripts.docs` writes them, `--check` reports stale ones."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.docs import events, machine, reasons, settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "docs/settings.md": settings.page,
    "docs/events.md": events.page,
    "docs/reasons.md": reasons.page,
    "docs/explanation/activation.md": machine.page,
    "docs/img/activation.svg": machine.diagram,
}


def main() -> int:
    """Write the pages; with `--check`, return 1 if any page is not current."""
    texts = {ROOT / name: page() for name, page in PAGES.items()}
    stale = [p for p, text in texts.items() if not p.is_file() or p.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not current; run `make generate`\n")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
