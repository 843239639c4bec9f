"""Generator of docs/cli.md: every command with its options, extracted by typer.

`python -m reconciler.cli.reference` writes it; `--check` reports whether it is current.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from typer.cli import get_docs_for_click
from typer.core import TyperGroup
from typer.main import get_command
from typer.models import Context

from reconciler.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "cli.md"
HEAD = """\
# Command line

Every command of `groundcrew`, generated from the commands by `make generate`. `-o json` and
`-o yaml` print a stable document everywhere; tables, colours and progress are for terminals
(`NO_COLOR=1` takes the colours away). A misspelt name is answered with the closest one.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | a problem was found |
| 2 | wrong usage |
| 3 | unreachable |

`groundcrew --install-completion` teaches your shell the commands, options, and the names of your
instances and environments; `--show-completion` prints what it would install.
"""


def reference() -> str:
    """Return the text of docs/cli.md."""
    command = get_command(app)
    assert isinstance(command, TyperGroup), "there are several commands"
    context = Context(command, info_name="groundcrew")
    text = get_docs_for_click(obj=command, ctx=context, name="groundcrew")
    _, _, text = text.partition("**Usage**")
    for name, one in command.commands.items():  # typer's list cuts the texts short
        first = " ".join((one.help or "").split("\n\n")[0].split())
        line = f"* [`{name}`](#groundcrew-{name}): {first}"
        escaped = line.replace("\\", "\\\\")
        text = re.sub(rf"^\* `{name}`: .*$", escaped, text, flags=re.MULTILINE)
    text = "\n".join(line.rstrip() for line in text.splitlines()).rstrip()
    return f"{HEAD}\n**Usage**{text}\n"


def main() -> int:
    """Write the file; with `--check`, return 1 if it is not current."""
    text = reference()
    if REFERENCE.is_file() and REFERENCE.read_text() == text:
        return 0
    if "--check" in sys.argv[1:]:
        sys.stderr.write(f"{REFERENCE.relative_to(ROOT)} is not current; run `make generate`\n")
        return 1
    REFERENCE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
