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

## Which daemon a command asks

Commands under "Status" and "Requests to the daemon" work from any machine, over the daemon's
[HTTP API](api.md). They ask, in this order:

1. the server in `--server` or `GROUNDCREW_SERVER`;
2. the records here, if there is a `groundcrew.toml` (or `--config`, `GROUNDCREW_CONFIG`),
   or `GROUNDCREW_STATE_DIR`, `GROUNDCREW_DATABASE` or `GROUNDCREW_GIT__URL` is set;
3. the server of the last `groundcrew login`.

`login` reads a [token](pages.md#tokens) from standard input, or asks for it on a terminal, tries
it, and keeps it in `~/.config/groundcrew/servers.json`, which only you can read. `logout` removes
it.

<!-- not run: needs a server with a certificate;
tests/cli/test_server.py::test_a_login_is_kept_for_the_user_alone_until_the_logout -->
```sh
groundcrew login https://groundcrew.example.com < token.txt
groundcrew status
groundcrew rollback analytics-prod --wait
```

In a CI set `GROUNDCREW_SERVER`, and `GROUNDCREW_TOKEN` or `GROUNDCREW_TOKEN_FILE`; these come
before a login. The file of a certificate's authority is `login --ca-file` or `GROUNDCREW_CA_FILE`.
A token is sent only by HTTPS or to this machine itself, and never to where a redirect leads.

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
