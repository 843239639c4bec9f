"""Command `groundcrew init`: creates an environments repo from the example."""

from __future__ import annotations

import re
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.output import say, warn
from reconciler.example import example

EXAMPLE_TEAM = "analytics"
NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,39}[a-z0-9])?$")
HEAD = """\
# An environments repo

What Groundcrew reads: one definition of packages for each team, one file for each Airflow.
"""
KUBERNETES = """\
  kubernetes: {{namespace: airflow-{instance}, release: airflow}}   # of the official Airflow chart
"""
API = "http://airflow-api-server.airflow-{instance}:8080"


class Target(StrEnum):
    """Location of the Airflows."""

    KUBERNETES = "kubernetes"
    LOCAL = "local"


class Forge(StrEnum):
    """Forge whose CI checks pull requests."""

    GITHUB = "github"
    GITLAB = "gitlab"
    NONE = "none"


CI = {Forge.GITHUB: {".github"}, Forge.GITLAB: {".gitlab-ci.yml", "renovate.json"}}
"""Outermost files and folders of the example that are for one forge only."""
UPDATES = {Forge.GITHUB: ".github/dependabot.yml", Forge.GITLAB: "renovate.json"}


def init(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Directory to create; it must be empty or not exist yet."
        ),
    ],
    team: Annotated[str, typer.Option(help="Name of the first team.")] = EXAMPLE_TEAM,
    on: Annotated[
        Target, typer.Option(help="Where the team's Airflow instances run.")
    ] = Target.KUBERNETES,
    ci: Annotated[Forge, typer.Option(help="CI system that checks pull requests.")] = Forge.GITHUB,
) -> None:
    """Write an environments repo to start from, which `groundcrew validate` accepts.

    It has one team with its own package and two instances, dev before prod, and the CI that plans
    pull requests. DIR becomes a git repository; nothing is committed.
    """
    if not NAME.match(team):
        raise Misuse(
            f"{team!r} is not a valid team name: use lower-case letters, digits and - only"
        )
    if directory.exists() and (not directory.is_dir() or _used(directory)):
        raise Misuse(
            f"{directory} is not empty; give an empty directory or one that does not exist yet"
        )
    write(directory, team, on, ci)
    _git(directory)
    files = sum(1 for p in directory.rglob("*") if p.is_file() and ".git" not in p.parts)
    say(f"{directory}: {files} files written. Next steps:")
    for number, step in enumerate(_steps(directory, team), 1):
        say(f"  {number}. {step}")


def _used(directory: Path) -> bool:
    """Return True if a directory contains more than an empty git repository."""
    return any(p.name != ".git" for p in directory.iterdir())


def write(directory: Path, team: str, on: Target, ci: Forge) -> None:
    """Write the files below `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    others = set[str]().union(*(paths for forge, paths in CI.items() if forge is not ci))
    with example() as source:
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if not path.is_file() or "__pycache__" in inside.parts or inside.parts[0] in others:
                continue
            target = directory / str(inside).replace(EXAMPLE_TEAM, team)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text()
            if inside.parts[0] in ("instances", "teams", "shared"):
                text = text.replace(EXAMPLE_TEAM, team)
            if inside.parts[0] == "instances" and on is Target.KUBERNETES:
                text = on_kubernetes(text, target.stem)
            if str(inside) == "README.md":
                text = _readme(text, ci)
            target.write_text(text)


def on_kubernetes(text: str, instance: str) -> str:
    """Return a local instance's definition changed to a release of the official chart."""
    lines: list[str] = []
    skipping = False
    for line in text.splitlines(keepends=True):
        inner = line.startswith("   ") or not line.strip()
        if line.startswith("  local:"):
            lines.append(KUBERNETES.format(instance=instance))
            skipping = True
        elif not (skipping and inner):
            skipping = False
            lines.append(line)
    address = f"    url: {API.format(instance=instance)}"
    return re.sub(r"^    url: .*$", address, "".join(lines), flags=re.MULTILINE)


def _readme(text: str, ci: Forge) -> str:
    """Return the example's README for the repo's owners: the table, and how to check."""
    _, bar, rest = text.partition("\n| path ")
    table, _, _ = rest.partition("\nIn CI:")
    readme = HEAD + bar + table.rstrip("\n") + "\n"
    if ci is not Forge.NONE:
        where = ".github/workflows/groundcrew.yml" if ci is Forge.GITHUB else ".gitlab-ci.yml"
        readme += f"\nIn CI: `{where}` says on each pull request what merging it would do.\n"
        readme += (
            f"`{UPDATES[ci]}` keeps each team's `requirements.txt` up to date, if there is one.\n"
        )
    return readme


def _git(directory: Path) -> None:
    if (directory / ".git").exists():
        return
    git = shutil.which("git")
    if git is None:
        warn("git is not installed, so this is a plain directory")
        return
    done = subprocess.run(
        [git, "init", "--quiet", "--initial-branch", "main", str(directory)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        warn(f"git init: {done.stderr.strip()}")
        raise typer.Exit(Exit.UNREACHABLE)


def _steps(directory: Path, team: str) -> list[str]:
    return [
        f"describe your Airflow instances in {directory}/instances/*.yaml",
        f"list the packages of team {team} in {directory}/teams/{team}/{team}.yaml",
        f"groundcrew validate {directory}",
        f"git -C {directory} add . && git -C {directory} commit, and push it",
        "set git.url in groundcrew.toml to where it is",
        f"write username and password of Airflow's API into <secrets_dir>/{team}/{team}-airflow/",
        "groundcrew doctor, and then groundcrew run",
    ]
