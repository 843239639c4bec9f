"""Command `groundcrew airflow-values`: values to set once in a release of the Airflow chart."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.output import (
    finding_line,
    warn,
)

if TYPE_CHECKING:
    from reconciler.core.definitions import Instance
    from reconciler.settings import Settings

VOLUME = "groundcrew"
LOCAL = "groundcrew-local"
LOCAL_PATH = "/var/cache/groundcrew"
HEAD = """\
# Values for the official Airflow chart: instance {instance}, release {release} in {namespace}.
# Helm replaces lists and does not join them: if your values have volumes, volumeMounts or env
# already, add these entries to them. A PYTHONPATH of your own goes behind this one, after a colon.
"""
TWO = {
    "name": "AIRFLOW__API__AUTH_BACKENDS",
    "value": "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session",
}
"""Values for Airflow 2: without the first, its API takes no password; the second is the default."""


class Form(StrEnum):
    """Formats that `-o` accepts here."""

    YAML = "yaml"
    JSON = "json"


def airflow_values(
    instance: Annotated[
        str, typer.Argument(metavar="INSTANCE", autocompletion=completion.instances)
    ],
    definitions: Annotated[
        Path | None,
        typer.Option(help="Checkout of the environments repo; default: the daemon's records."),
    ] = None,
    local: Annotated[
        str,
        typer.Option(
            metavar="disk|memory|off|/PATH",
            help="Where pods unpack what imports need: on their node's disk or in memory (an "
            "emptyDir), in a folder of the node that its pods share (a hostPath), or not at all.",
        ),
    ] = "disk",
    output: Annotated[Form, typer.Option("-o", "--output", help="Output format.")] = Form.YAML,
) -> None:
    """Print the values that connect a release of the official Airflow chart, for `helm -f`.

    They mount the whole share read-only and put the instance's loader on PYTHONPATH, in every
    component of Airflow and in the pods of tasks. Run it with the daemon's settings.
    """
    from reconciler.settings import Settings

    name = instance.removeprefix("instance/")
    if definitions is None:
        definition, two = _recorded(name)
    else:
        definition, two = _defined(definitions, name), None
    if definition.kubernetes is None:
        raise Misuse(
            f"instance {name} is not on Kubernetes; give its components the variable "
            f"PYTHONPATH={_loader(Settings(), name)}"
        )
    values = chart_values(Settings(), name, local, two=bool(two))
    if output is Form.JSON:
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
        return
    import yaml

    target = definition.kubernetes
    head = HEAD.format(instance=name, release=target.release, namespace=target.namespace)
    if two is None:
        head += f"# Airflow 2 takes a password only with this in env, too: {json.dumps(TWO)}\n"
    sys.stdout.write(head + yaml.safe_dump(values, sort_keys=False))


def chart_values(
    settings: Settings, instance: str, local: str = "disk", *, two: bool = False
) -> dict[str, Any]:
    """Return the values: `volumes`, `volumeMounts`, `env`; `local` as the option of that name.

    With `two` they are for an Airflow 2.

    Measured by rendering chart 1.22 with each executor, Airflow 2.11 and 3.2: they reach every
    component, the jobs and the template of worker pods. Log groomers and the clean-up of pods get
    the volume without the variable; they load nothing.
    """
    volumes = [{"name": VOLUME, **_read_only(settings.kubernetes.volume)}]
    mounts = [{"name": VOLUME, "mountPath": str(settings.share), "readOnly": True}]
    local_setting = "off"
    if local != "off":
        volumes.append({"name": LOCAL, **_local_volume(local)})
        mounts.append({"name": LOCAL, "mountPath": LOCAL_PATH})
        local_setting = f"{LOCAL_PATH}:/tmp" if local.startswith("/") else LOCAL_PATH
    return {
        "volumes": volumes,
        "volumeMounts": mounts,
        "env": [
            {"name": "PYTHONPATH", "value": _loader(settings, instance)},
            {"name": "GROUNDCREW_LOCAL", "value": local_setting},
            *([TWO] if two else []),
        ],
    }


def _read_only(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a volume's source, read-only for the whole pod; hostPath does not support that."""
    return {
        kind: {**about, "readOnly": True} if kind != "hostPath" else about
        for kind, about in source.items()
    }


def _local_volume(local: str) -> dict[str, Any]:
    """Return the source of the volume in which packs are unpacked."""
    if local == "disk":
        return {"emptyDir": {}}
    if local == "memory":
        return {"emptyDir": {"medium": "Memory"}}
    if local.startswith("/") and ".." not in Path(local).parts:
        # If it is missing, Kubernetes creates it owned by root: the pods run, and unpack in /tmp.
        return {"hostPath": {"path": local, "type": "DirectoryOrCreate"}}
    raise Misuse(f"--local {local}: give disk, memory, off or the absolute path of a folder")


def _loader(settings: Settings, instance: str) -> str:
    from reconciler.share.share import Share

    return str(Share(settings.share).instance_path(instance) / "loader")


def _recorded(name: str) -> tuple[Instance, bool | None]:
    """Return the instance as last accepted, and whether its Airflow is known to be a 2.x."""
    from reconciler.cli.objects import INSTANCE, choose
    from reconciler.daemon.open_records import current
    from reconciler.settings import Settings

    records = current(Settings())
    full = choose([f"{INSTANCE}/{one}" for one in sorted(records.instances)], name, INSTANCE)
    record = records.instances[full.partition("/")[2]]
    runtime = record.runtime
    return record.definition, runtime.airflow_version.startswith("2.") if runtime else None


def _defined(path: Path, name: str) -> Instance:
    """Return the instance of a checkout; mistakes in other files do not matter."""
    from gitsource.validate import validate
    from reconciler.cli.objects import INSTANCE, choose
    from reconciler.core.errors import Stalled

    try:
        definitions, findings = validate(path)
    except Stalled as error:
        raise Misuse(error.message) from error
    ours = [one for one in findings if one.object == f"Instance/{name}"]
    for one in ours:
        warn(finding_line(one))
    if ours:
        raise typer.Exit(Exit.WRONG)
    choose([f"{INSTANCE}/{one}" for one in sorted(definitions.instances)], name, INSTANCE)
    return definitions.instances[name]
