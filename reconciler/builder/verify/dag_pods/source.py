"""Sources of a release's DAGs, read from the pod template of the component that parses them.

Pure. A source contains only the parts that are known to carry DAGs, and nothing else from the
template (variables, secrets, other volumes, the service account).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from reconciler.core.definitions import DagOrigin

Json = dict[str, Any]

HOME = "/opt/airflow"  # that of the official image
CHART_VOLUME = "dags"  # the official chart's volume with the DAGs, wherever it is mounted
CONFIG = "airflow.cfg"
SYNC = "git-sync"  # prefix of the containers of the official chart that fetch DAGs
SYNC_USER = 65533  # the user of git-sync
CARRIERS = ("persistentVolumeClaim", "hostPath", "nfs", "configMap", "image", "csi")
SHARES = ("persistentVolumeClaim", "hostPath", "nfs", "csi")
CREDENTIALS = ("secret", "configMap")

VARIABLES = frozenset(
    {
        "AIRFLOW_HOME",
        "PYTHONPATH",
        "AIRFLOW__CORE__DAGS_FOLDER",
        "AIRFLOW__CORE__PLUGINS_FOLDER",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT",
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE",
        "AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
    }
)
"""Variables of the release that parsing needs; only literal values are used."""

_SYNC_VARIABLE = re.compile(
    r"(GITSYNC|GIT_SYNC|GIT)_(REPO|BRANCH|REV|REF|DEPTH|SUBMODULES|ROOT|DEST|LINK|ADD_USER|USERNAME"
    r"|PASSWORD|PASSWORD_FILE|SSH|SSH_KEY_FILE|SSH_KNOWN_HOSTS|SSH_KNOWN_HOSTS_FILE|KNOWN_HOSTS"
    r"|COOKIE_FILE|ASKPASS_URL|GIT_CONFIG|SPARSE_CHECKOUT_FILE|SYNC_TIMEOUT|TIMEOUT|SSL_CAINFO"
    r"|GITHUB_[A-Z_]+)|(?i:https?_proxy|no_proxy)"
)
_ONE_TIME = ("GITSYNC_ONE_TIME", "GIT_SYNC_ONE_TIME")  # of versions 4 and 3


class Unseen(Exception):
    """Reason why DAGs cannot be parsed before the switch, with what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Source:
    """A release's DAGs, and what a pod needs to read them.

    `folder` is "" if only the release's airflow.cfg has it: then it is read in the pod, from the
    ConfigMap `config`. `sync` is a container that fetches the DAGs first. `environment` and
    `environment_from` are those of the release, complete, only for `checks: {runAs: release}`.
    """

    description: str
    folder: str
    home: str
    volumes: tuple[Json, ...]
    mounts: tuple[Json, ...]
    variables: Mapping[str, str]
    config: str = ""
    sync: Json | None = None
    sync_volumes: tuple[Json, ...] = ()
    environment: tuple[Json, ...] = ()
    environment_from: tuple[Json, ...] = ()
    pod: Json = field(default_factory=dict)


def source_of(
    template: Json, component: str, share: str, origin: DagOrigin | None, *, as_release: bool
) -> Source:
    """Return the place of a release's DAGs. Raises Unseen.

    `template` is the pod template of `component`, `share` the folder in which Groundcrew's share is
    mounted, `origin` the Instance's own statement.
    """
    spec = template.get("spec") or {}
    main = _main(spec, component)
    volumes = {str(v["name"]): v for v in spec.get("volumes") or []}
    variables = _variables(main)
    home = variables.get("AIRFLOW_HOME", HOME)
    told = variables.get("AIRFLOW__CORE__DAGS_FOLDER", "")
    shares = _share_mounts(main, volumes, share, component)
    config = _config_map(main, volumes)
    if origin is not None and (origin.claim or origin.image):
        carrier = _named(origin, told or f"{home}/dags", config)
    else:
        carrier = _template_source(spec, main, volumes, home, told, origin, config)
    mounts = _merged((*shares, *carrier.mounts, *_plugins(main, volumes, home, variables)))
    if as_release:
        mounts = _merged((*mounts, *_all_mounts(main, volumes)))
    wanted = {str(m["name"]) for m in mounts}
    kept = [_plain(v, (*CARRIERS, "emptyDir")) for n, v in volumes.items() if n in wanted]
    if as_release:
        kept = [v for n, v in volumes.items() if n in wanted]
    kept += [v for v in carrier.volumes if v["name"] not in volumes]
    return Source(
        carrier.description,
        carrier.folder,
        home,
        tuple(kept),
        mounts,
        variables,
        config,
        carrier.sync,
        carrier.sync_volumes,
        tuple(main.get("env") or ()) if as_release else (),
        tuple(main.get("envFrom") or ()) if as_release else (),
        _scheduling(spec),
    )


@dataclass(frozen=True, slots=True)
class _Carrier:
    """Containers, volumes and mounts that carry the DAGs."""

    description: str
    folder: str
    mounts: tuple[Json, ...] = ()
    volumes: tuple[Json, ...] = ()
    sync: Json | None = None
    sync_volumes: tuple[Json, ...] = ()


def _main(spec: Json, component: str) -> Json:
    containers = list(spec.get("containers") or [])
    container = next((c for c in containers if c["name"] == component), None)
    if container is None and not containers:
        raise Unseen(f"the pod template of the {component} has no container")
    return dict(container or containers[0])


def _variables(main: Json) -> dict[str, str]:
    return {
        str(one["name"]): str(one["value"])
        for one in main.get("env") or []
        if one["name"] in VARIABLES and one.get("value") and "$(" not in str(one["value"])
    }


def _named(origin: DagOrigin, usual: str, config: str) -> _Carrier:
    """Return the source that the Instance names: a claim, or a folder of the image."""
    if origin.image:
        return _Carrier(f"the image, {origin.image}", origin.image)
    folder = origin.path or usual
    mount: Json = {"name": "groundcrew-dags", "mountPath": folder, "readOnly": True}
    if origin.sub_path:
        mount["subPath"] = origin.sub_path
    claim = {"persistentVolumeClaim": {"claimName": origin.claim}}
    del config
    return _Carrier(
        f"the claim {origin.claim}", folder, (mount,), ({"name": "groundcrew-dags", **claim},)
    )


def _template_source(
    spec: Json,
    main: Json,
    volumes: Mapping[str, Json],
    home: str,
    told: str,
    origin: DagOrigin | None,
    config: str,
) -> _Carrier:
    """Return the source that the template shows: volumes, git-sync, or else the image."""
    folder = (origin.path if origin is not None else "") or told
    usual = folder or f"{home}/dags"
    mounts = [
        mount
        for mount in main.get("volumeMounts") or []
        if mount["name"] == CHART_VOLUME or _touches(str(mount["mountPath"]), usual)
    ]
    synced = [m for m in mounts if "emptyDir" in volumes.get(m["name"], {})]
    if synced:
        return _synced(spec, volumes, synced, folder, origin)
    for mount in mounts:
        volume = volumes.get(mount["name"], {})
        if not any(kind in volume for kind in CARRIERS):
            kinds = ", ".join(sorted(volume.keys() - {"name"})) or "a volume claim template"
            raise Unseen(
                f"the DAGs lie in a volume that is given to no pod of ours ({mount['name']}: "
                f"{kinds}); say where they are in spec.dags of the Instance"
            )
    if not mounts:
        folder = folder or ("" if config else usual)
        return _Carrier(f"the image{f', {folder}' if folder else ''}", folder)
    names = sorted({_words(volumes[m["name"]]) for m in mounts})
    if not folder and not config:
        folder = str(mounts[0]["mountPath"])
    return _Carrier(", ".join(names), folder, tuple(_reading(m) for m in mounts))


def _synced(
    spec: Json,
    volumes: Mapping[str, Json],
    mounts: Sequence[Json],
    folder: str,
    origin: DagOrigin | None,
) -> _Carrier:
    """Return DAGs that a container of the pod fetches from git."""
    wanted = origin.container if origin is not None else ""
    names = {str(m["name"]) for m in mounts}
    known = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    fits = [
        one
        for one in known
        if (one["name"] == wanted if wanted else str(one["name"]).startswith(SYNC))
        and names & {str(m["name"]) for m in one.get("volumeMounts") or []}
    ]
    if not fits:
        raise Unseen(
            f"the DAGs lie in the emptyDir {', '.join(sorted(names))}, and no container of the pod "
            f"is known to fetch them; name it in spec.dags.git.container of the Instance"
        )
    sync, extra = _sync_container(fits[0], volumes, names)
    values = {v["name"]: v.get("value", "") for v in sync["env"]}
    repo = values.get("GITSYNC_REPO") or values.get("GIT_SYNC_REPO") or ""
    description = f"git{f', {_without_user(repo)}' if repo else ''}"
    return _Carrier(description, folder, tuple(_reading(m) for m in mounts), (), sync, extra)


def _sync_container(
    given: Json, volumes: Mapping[str, Json], dags: set[str]
) -> tuple[Json, tuple[Json, ...]]:
    """Return a container that fetches once, with its git credentials and nothing else."""
    arguments = [str(word) for word in given.get("args") or []]
    if any("hook" in word for word in arguments):
        raise Unseen(
            f"the container {given['name']} runs hooks; say where the DAGs are in spec.dags"
        )
    env = [
        _variable(one)
        for one in given.get("env") or []
        if _SYNC_VARIABLE.fullmatch(str(one["name"]))
    ]
    env += [{"name": name, "value": "true"} for name in _ONE_TIME]
    mounts, extra = [], {}
    for mount in given.get("volumeMounts") or []:
        volume = volumes.get(mount["name"], {})
        if mount["name"] in dags:
            mounts.append(_fields(mount, "name", "mountPath", "subPath"))
        elif any(kind in volume for kind in CREDENTIALS):
            mounts.append(_reading(mount))
            extra[mount["name"]] = _plain(volume, CREDENTIALS)
    security = given.get("securityContext") or {}
    container = {
        "name": "git-sync",
        "image": given["image"],
        "imagePullPolicy": given.get("imagePullPolicy", "IfNotPresent"),
        "env": env,
        "volumeMounts": mounts,
        "user": security.get("runAsUser") or SYNC_USER,
    }
    for key in ("command", "args"):
        if given.get(key):
            container[key] = list(given[key])
    return container, tuple(extra.values())


def _variable(given: Json) -> Json:
    variable = _fields(given, "name", "value")
    keys = ("secretKeyRef", "configMapKeyRef")
    refers = _fields(given.get("valueFrom") or {}, *keys)
    return {**variable, "valueFrom": refers} if refers else variable


def _share_mounts(
    main: Json, volumes: Mapping[str, Json], share: str, component: str
) -> tuple[Json, ...]:
    for mount in main.get("volumeMounts") or []:
        volume = volumes.get(mount["name"], {})
        if _is_at_or_above(str(mount["mountPath"]), share) and any(k in volume for k in SHARES):
            return (_reading(mount),)
    raise Unseen(
        f"the {component} does not mount the share at {share}; connect the release as "
        f"`groundcrew airflow-values` prints"
    )


def _plugins(
    main: Json, volumes: Mapping[str, Json], home: str, variables: Mapping[str, str]
) -> tuple[Json, ...]:
    folder = variables.get("AIRFLOW__CORE__PLUGINS_FOLDER", f"{home}/plugins")
    return tuple(
        _reading(mount)
        for mount in main.get("volumeMounts") or []
        if _touches(str(mount["mountPath"]), folder)
        and any(kind in volumes.get(mount["name"], {}) for kind in CARRIERS)
    )


def _all_mounts(main: Json, volumes: Mapping[str, Json]) -> tuple[Json, ...]:
    """Return all mounts of the release's container, except tokens of its service account."""
    return tuple(
        _reading(m)
        for m in main.get("volumeMounts") or []
        if m["name"] in volumes and "projected" not in volumes[m["name"]]
    )


def _config_map(main: Json, volumes: Mapping[str, Json]) -> str:
    """Return the ConfigMap whose key airflow.cfg is the release's configuration, or ""."""
    for mount in main.get("volumeMounts") or []:
        if mount.get("subPath") == CONFIG:
            config = volumes.get(mount["name"], {}).get("configMap") or {}
            return "" if config.get("items") else str(config.get("name") or "")
    return ""


def _scheduling(spec: Json) -> Json:
    """Return the scheduling of the release's pods, and how their images are pulled."""
    kept = ("nodeSelector", "tolerations", "imagePullSecrets")
    scheduling = {key: spec[key] for key in kept if spec.get(key)}
    security = spec.get("securityContext") or {}
    if security.get("fsGroup") is not None:
        scheduling["fsGroup"] = security["fsGroup"]
    return scheduling


def _reading(mount: Json) -> Json:
    if "$" in str(mount.get("subPathExpr") or ""):
        raise Unseen(
            f"the volume {mount['name']} is mounted by subPathExpr; say where the DAGs are in "
            f"spec.dags of the Instance"
        )
    return {**_fields(mount, "name", "mountPath", "subPath"), "readOnly": True}


def _plain(volume: Json, kinds: Sequence[str]) -> Json:
    return _fields(volume, "name", *kinds)


def _fields(given: Mapping[str, Any], *names: str) -> Json:
    return {name: given[name] for name in names if given.get(name) not in (None, "")}


def _merged(mounts: Sequence[Json]) -> tuple[Json, ...]:
    """Return the mounts without a second one at the same path."""
    return tuple({str(m["mountPath"]): m for m in reversed(mounts)}.values())[::-1]


def _words(volume: Json) -> str:
    if claim := volume.get("persistentVolumeClaim"):
        return f"the claim {claim['claimName']}"
    kind = next(kind for kind in CARRIERS if kind in volume)
    where = volume[kind].get("path") or volume[kind].get("name") or volume[kind].get("reference")
    return f"the volume {volume['name']} ({kind}{f' {where}' if where else ''})"


def _without_user(repo: str) -> str:
    return re.sub(r"//[^/@]*@", "//", repo)


def _is_at_or_above(upper: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(upper))


def _touches(mount: str, folder: str) -> bool:
    return _is_at_or_above(mount, folder) or _is_at_or_above(folder, mount)
