"""Volumes of a pod as host directories, and the environment of its containers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness.kube_api import Api

Json = dict[str, Any]


class MountError(Exception):
    """A volume or a value is not available (yet); the kubelet tries again."""


class Volumes:
    """Volumes of one pod below `root`; `nfs` maps `server:path` to a directory."""

    def __init__(self, api: Api, pod: Json, root: Path, nfs: Mapping[str, Path]) -> None:
        self._api, self._pod, self._root, self._nfs = api, pod, root, nfs
        self.namespace: str = pod["metadata"]["namespace"]
        self._by_name = {v["name"]: v for v in pod["spec"].get("volumes") or []}

    def mounts(self, container: Mapping[str, Any]) -> list[tuple[Path, Path, bool]]:
        """Return (host directory or file, path in the container, read-only), outermost first."""
        mounts = []
        for mount in container.get("volumeMounts") or []:
            volume = self._by_name[mount["name"]]
            source, fixed = self.directory(volume)
            read_only = bool(mount.get("readOnly")) or fixed
            if sub := mount.get("subPath"):
                source = source / sub
                if not source.exists() and not fixed:
                    source.mkdir(parents=True)
            mounts.append((source, Path(mount["mountPath"]), read_only))
        return sorted(mounts, key=lambda one: len(one[1].parts))

    def directory(self, volume: Mapping[str, Any]) -> tuple[Path, bool]:
        """Return the path of a volume on the host, and whether all of it is read-only."""
        own = self._root / volume["name"]
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]
            return self._claimed(claim["claimName"]), bool(claim.get("readOnly"))
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"]), False
        if "nfs" in volume:
            return self._exported(volume["nfs"]), bool(volume["nfs"].get("readOnly"))
        own.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            own.chmod(0o777)
            return own, False
        for source in volume.get("projected", {}).get("sources") or [volume]:
            self._project(own, source)
        return own, True

    def _exported(self, nfs: Mapping[str, Any]) -> Path:
        name = f"{nfs['server']}:{nfs['path']}"
        if name not in self._nfs:
            raise MountError(f"nobody exports {name}")
        return self._nfs[name]

    def _claimed(self, name: str) -> Path:
        claim = self._api.get("persistentvolumeclaims", self.namespace, name)
        volume = (
            self._api.get("persistentvolumes", "", claim["spec"]["volumeName"]) if claim else None
        )
        if volume is None:
            raise MountError(f'persistentvolumeclaim "{name}" is not bound')
        spec = volume["spec"]
        return Path(spec["hostPath"]["path"]) if "hostPath" in spec else self._exported(spec["nfs"])

    def _project(self, own: Path, source: Mapping[str, Any]) -> None:
        if token := source.get("serviceAccountToken"):
            body = {
                "metadata": {"name": self._pod["spec"]["serviceAccountName"]},
                "spec": {"expirationSeconds": max(600, token.get("expirationSeconds", 3600))},
            }
            answer = self._api.create("serviceaccounts", self.namespace, body, "token")
            (own / token["path"]).write_text(answer["status"]["token"])
        for item in source.get("downwardAPI", {}).get("items") or []:
            (own / item["path"]).write_text(self.field(item["fieldRef"]["fieldPath"]))
        for kind in ("configMap", "secret"):
            if reference := source.get(kind):
                name = reference.get("name") or reference["secretName"]
                values = self._data(kind, name, bool(reference.get("optional")))
                paths = {i["key"]: i["path"] for i in reference.get("items") or []} or {
                    key: key for key in values
                }
                for key, path in paths.items():
                    (own / path).parent.mkdir(parents=True, exist_ok=True)
                    (own / path).write_bytes(values[key])

    def _data(self, kind: str, name: str, optional: bool) -> dict[str, bytes]:
        plural = {"configMap": "configmaps", "secret": "secrets"}[kind]
        document = self._api.get(plural, self.namespace, name)
        if document is None:
            if optional:
                return {}
            raise MountError(f'{kind.lower()} "{name}" not found')
        data = document.get("data") or {}
        if kind == "secret":
            return {key: base64.b64decode(value) for key, value in data.items()}
        return {key: value.encode() for key, value in data.items()}

    def field(self, path: str) -> str:
        """Return a field of the pod, as named by the downward API."""
        meta, spec = self._pod["metadata"], self._pod["spec"]
        if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str((meta.get(match[1]) or {}).get(match[2], ""))
        known = {
            "metadata.name": meta["name"],
            "metadata.namespace": meta["namespace"],
            "metadata.uid": meta["uid"],
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "status.podIP": "127.0.0.1",
            "status.hostIP": "127.0.0.1",
        }
        return str(known[path])

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Return the variables of a container's spec."""
        variables: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            kind, name = (
                ("secret", "secretRef") if "secretRef" in source else ("configMap", "configMapRef")
            )
            ref = source[name]
            for key, value in self._data(kind, ref["name"], bool(ref.get("optional"))).items():
                variables[source.get("prefix", "") + key] = value.decode()
        for variable in container.get("env") or []:
            text = self._value(variable)
            if text is not None:
                variables[variable["name"]] = expand(text, variables)
        return variables

    def _value(self, variable: Mapping[str, Any]) -> str | None:
        source = variable.get("valueFrom")
        if not source:
            return str(variable.get("value", ""))
        if "fieldRef" in source:
            return self.field(source["fieldRef"]["fieldPath"])
        kind = "secret" if "secretKeyRef" in source else "configMap"
        ref = source[f"{kind}KeyRef"]
        value = self._data(kind, ref["name"], bool(ref.get("optional"))).get(ref["key"])
        if value is None and not ref.get("optional"):
            raise MountError(f"couldn't find key {ref['key']} in {kind} {ref['name']}")
        return None if value is None else value.decode()


def expand(word: str, variables: Mapping[str, str]) -> str:
    """Return a word with `$(NAME)` expanded; unknown names stay as they are, `$$(` is an escape."""
    return re.sub(
        r"\$\$\(|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)",
        lambda m: "$(" if m[1] is None else variables.get(m[1], m[0]),
        word,
    )
