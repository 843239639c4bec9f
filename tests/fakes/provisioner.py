"""Default storage class for the laboratory: every claim of it gets its own directory."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from tests.harness.follow import Follower
from tests.harness.kube_api import Api, ApiError, Json

CLASS = "lab"


class Provisioner:
    """Context manager that binds claims that name no other class, as StatefulSets create them."""

    def __init__(self, api: Api, root: Path) -> None:
        self._api, self._root = api, root
        self._claims = Follower(api, "persistentvolumeclaims", self._see, self._gone)

    def __enter__(self) -> Provisioner:
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        self._api.create(
            "storageclasses",
            "",
            {
                "metadata": {"name": CLASS, "annotations": annotations},
                "provisioner": "lab/directory",
                "reclaimPolicy": "Retain",
            },
        )
        self._claims.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.stop()

    def _see(self, claim: Json) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        if spec.get("volumeName") or spec.get("storageClassName") != CLASS:
            return
        name = f"pvc-{meta['uid']}"
        directory = self._root / name
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(ApiError):  # it already exists
            self._api.create(
                "persistentvolumes",
                "",
                {
                    "metadata": {"name": name},
                    "spec": {
                        "accessModes": spec["accessModes"],
                        "storageClassName": CLASS,
                        "capacity": spec["resources"]["requests"],
                        "hostPath": {"path": str(directory)},
                        "persistentVolumeReclaimPolicy": "Retain",
                        "claimRef": {
                            "namespace": meta["namespace"],
                            "name": meta["name"],
                            "uid": meta["uid"],
                        },
                    },
                },
            )

    def _gone(self, claim: Json) -> None:
        name = f"pvc-{claim['metadata']['uid']}"
        if claim["spec"].get("storageClassName") == CLASS:
            self._api.delete("persistentvolumes", "", name)
            shutil.rmtree(self._root / name, ignore_errors=True)
