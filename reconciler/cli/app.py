"""Application that combines all commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import (
    airflow_values,
    build,
    builds,
    doctor,
    history,
    init,
    login,
    logs,
    plan,
    requests,
    run,
    status,
    validate,
    why,
)
from reconciler.cli.exit_codes import Misuse
from reconciler.cli.output import warn
from reconciler.cli.variables import misspelt

app = typer.Typer(
    name="groundcrew",
    help="Gives every Airflow instance the Python packages that its team needs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 a problem was found, 2 wrong usage, 3 unreachable.",
)


def _version(asked: bool) -> None:
    if asked:
        from reconciler.version import installed_version

        typer.echo(f"groundcrew {installed_version()}")
        raise typer.Exit


@app.callback()
def groundcrew(
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file; default: GROUNDCREW_CONFIG, then ./groundcrew.toml."),
    ] = None,
    server: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Ask this server instead of the records here; default: GROUNDCREW_SERVER, then "
            "the server of `groundcrew login` where there is no settings file.",
        ),
    ] = "",
    version: Annotated[  # noqa: ARG001 - its callback prints it and ends the command
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Give every Airflow instance the Python packages its team needs."""
    if config is not None and server:
        raise Misuse("give either --config for the records here, or --server")
    if config is not None:
        os.environ["GROUNDCREW_CONFIG"] = str(config)
        os.environ.pop("GROUNDCREW_SERVER", None)
    if server:
        os.environ["GROUNDCREW_SERVER"] = server
    named = os.environ.get("GROUNDCREW_CONFIG")
    if named and not Path(named).is_file():
        raise Misuse(f"there is no settings file {named}; correct --config or GROUNDCREW_CONFIG")
    for name, meant in misspelt(os.environ):
        hint = (
            f"did you mean {meant}?" if meant else "unset it, or look up the name in the settings"
        )
        warn(f"{name} is not a setting and is ignored; {hint}")


app.command(rich_help_panel="For teams")(validate.validate)
app.command(rich_help_panel="For teams")(init.init)
app.command(rich_help_panel="For teams")(build.build)
app.command(rich_help_panel="For teams")(build.export)
app.command(rich_help_panel="For teams")(build.venv)
app.command("airflow-values", rich_help_panel="The daemon")(airflow_values.airflow_values)
app.command(rich_help_panel="The daemon")(run.run)
app.command(rich_help_panel="The daemon")(run.gc)
app.command("adopt-share", rich_help_panel="The daemon")(run.adopt_share)
app.command(rich_help_panel="The daemon")(doctor.doctor)
app.command(rich_help_panel="Status")(status.status)
app.command(rich_help_panel="Status")(builds.builds)
app.command(rich_help_panel="Status")(builds.diff)
app.command(rich_help_panel="Status")(why.why)
app.command(rich_help_panel="Status")(plan.plan)
app.command(rich_help_panel="Status")(history.history)
app.command(rich_help_panel="Status")(plan.runtimes)
app.command(rich_help_panel="Status")(logs.logs)
app.command(rich_help_panel="Requests to the daemon")(requests.rollback)
app.command(rich_help_panel="Requests to the daemon")(requests.activate)
app.command(rich_help_panel="Requests to the daemon")(requests.abort)
app.command(rich_help_panel="Requests to the daemon")(requests.suspend)
app.command(rich_help_panel="Requests to the daemon")(requests.resume)
app.command(rich_help_panel="Requests to the daemon")(requests.retry)
app.command(rich_help_panel="Requests to the daemon")(requests.refresh)
app.command("confirm-prune", rich_help_panel="Requests to the daemon")(requests.confirm_prune)
app.command(rich_help_panel="Server")(login.login)
app.command(rich_help_panel="Server")(login.logout)
app.command(rich_help_panel="Server")(login.version)
app.command(rich_help_panel="Demo")(run.demo)
