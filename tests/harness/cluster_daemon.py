"""Complete site on the laboratory's cluster: releases in namespaces, a share, a daemon.

Real git, real uv, the real API server and the real daemon as a process. Pods of releases really
run: each component starts with the real loader and reports to its FakeAirflow what it has loaded.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import tomli_w
import yaml

from reconciler.core.model import InstanceRecord
from reconciler.share.share import Share
from reconciler.store.store import Store
from tests.fakes.airflow_rest import PASSWORD, USER, FakeAirflow
from tests.fakes.base import make_base, write_package
from tests.fakes.pod_status import LabImage
from tests.fakes.releases import Release
from tests.harness.kube_api import Json, wait_for
from tests.harness.laboratory import Lab
from tests.harness.local_daemon import BAD_LIVE, GOOD, IDENTITY
from tests.harness.release_driver import proof_line, rights

COMMAND = """#!{python}
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
words = [w for w in sys.argv[1:] if w != "celery"]
if words[0] != "db":
    code = subprocess.call([sys.executable, "-m", "airflow", words[0], os.environ["REPORT"]])
    if code:
        sys.exit(code)
    while True:
        signal.pause()
"""
RUN = {"lab/mode": "run", "lab/ready-after": "0.1"}
__all__ = ["BAD_LIVE", "GOOD", "KubeSite", "Place"]


@dataclass(slots=True)
class Place:
    """Instance with its namespace, release and Airflow."""

    name: str
    team: str
    namespace: str
    release: Release
    airflow: FakeAirflow


class KubeSite:
    """Everything below `root`. `token` may be that of an account with fewer permissions."""

    def __init__(self, lab: Lab, root: Path, *, played: bool = False) -> None:
        self.lab, self.root, self.played = lab, root, played
        self.repo = root / "environments"
        self.share = Share(root / "share")
        self.builds = lab.namespace("builds")
        self.python = make_base(root / "base")
        self.places: dict[str, Place] = {}
        self.share.root.mkdir()
        self._stack = ExitStack()
        self.database = f"sqlite:///{root / 'state' / 'groundcrew.db'}"
        self.more: dict[str, Any] = {}
        self._store: Store | None = None
        self.repo.mkdir()
        self._git("init", "-q", "-b", "main")
        lab.claim(self.builds, "groundcrew-share", self.share.root)
        self.kubeconfig = root / "kubeconfig"
        self.user = ""

    def __enter__(self) -> Self:
        if self.played:
            self.lab.kubelet.behave, self.lab.kubelet.prove = self._behave, self._prove
        return self

    def __exit__(self, *_: object) -> None:
        self.lab.kubelet.behave = lambda pod: None
        self.lab.kubelet.prove = lambda pod, container: ""
        if self._store is not None:
            self._store.close()
        self._stack.close()
        self.lab.drop(self.builds, *{instance.namespace for instance in self.places.values()})

    def _behave(self, pod: Json) -> None:
        """Report a simulated pod's component to its Airflow, soon after it has started."""
        meta = pod["metadata"]
        labels = meta.get("labels") or {}
        for instance in self.places.values():
            mine = instance.namespace == meta["namespace"] and instance.release.name == labels.get(
                "release"
            )
            if mine and labels.get("component") in instance.release.components:
                said: tuple[str, dict[str, str], bytes] = (
                    f"/_fake/restart/{labels['component']}",
                    {},
                    b"{}",
                )
                threading.Timer(0.5, instance.airflow.answer, ("POST", *said)).start()

    def _prove(self, pod: Json, container: Json) -> str:
        """Return the proof of a simulated pod: it has loaded what its instance's pointer names."""
        path = next(
            (e["value"] for e in container.get("env") or [] if e["name"] == "PYTHONPATH"), ""
        )
        component = (pod["metadata"].get("labels") or {}).get("component", "")
        if container["name"] != component or not path:
            return ""
        pointer = self.share.pointer(Path(path).parent.name)
        builds = [named.build for named in pointer.entries.values()] if pointer else []
        return proof_line(component, build=(builds or ["none"])[-1])

    # ------------------------------------------------------------------------------- releases

    def image(self, reference: str, base: Path | None = None, digest: str = "") -> None:
        """Define an image: the site's base unless another is given."""
        root = base or self.root / "base"
        command = root / "bin" / "airflow"
        text = COMMAND.format(python=root / "bin" / "python")
        if not command.exists() or command.read_text() != text:  # pods may be starting it
            command.write_text(text)
            command.chmod(0o755)
        image = LabImage(root=root, digest=digest)
        for name in (reference, image.image_id(reference)):
            self.lab.kubelet.images[name] = image

    def instance(
        self,
        name: str,
        team: str,
        release: Release,
        namespace: str = "",
        airflow: FakeAirflow | None = None,
        **spec: Any,
    ) -> Place:
        """Install a release, in its own namespace by default, and define the instance."""
        airflow = airflow or self._stack.enter_context(FakeAirflow(release.version[0]))
        instance = Place(name, team, namespace or self.lab.namespace(name), release, airflow)
        instance.release = self.connected(instance)
        self.image(instance.release.reference)
        self.places[name] = instance
        self.connect(instance)
        secret = self.root / "secrets" / team / "airflow"
        secret.mkdir(parents=True, exist_ok=True)
        (secret / "username").write_text(USER)
        (secret / "password").write_text(PASSWORD)
        self.write(f"instances/{name}.yaml", self.definition(instance, **spec))
        return instance

    def connect(self, place: Place) -> None:
        """Install the release in its namespace, with a claim for the share."""
        if not self.lab.api.get("persistentvolumeclaims", place.namespace, "groundcrew-share"):
            volume = f"{place.namespace}-groundcrew-share"
            if self.lab.api.delete("persistentvolumes", "", volume):  # of an earlier namespace
                gone = self.lab.api
                wait_for(lambda: not gone.get("persistentvolumes", "", volume), 20, "its end")
            self.lab.claim(place.namespace, "groundcrew-share", self.share.root)
        self.lab.apply(place.release.manifests(place.namespace))
        if self.user:
            self.grant()

    def connected(self, place: Place) -> Release:
        """Return the release with its one-time values: the share and the loader."""
        share = str(self.share.root)
        annotations = {c: {} if self.played else RUN for c in place.release.components}
        return replace(
            place.release,
            image=place.release.image or f"example.test/{place.name}:{place.release.version}",
            groomers=self.played,
            grace=5,  # a signal that comes before a handler is there is lost
            volumes=(
                *place.release.volumes,
                {
                    "name": "groundcrew",
                    "persistentVolumeClaim": {"claimName": "groundcrew-share", "readOnly": True},
                },
            ),
            mounts=(
                *place.release.mounts,
                {"name": "groundcrew", "mountPath": share, "readOnly": True},
            ),
            env=(
                {"name": "PYTHONPATH", "value": f"{share}/instances/{place.name}/loader"},
                {"name": "REPORT", "value": place.airflow.restart_url},
            ),
            annotations={
                c: {**annotations[c], **place.release.annotations.get(c, {})} for c in annotations
            },
        )

    def definition(self, place: Place, **spec: Any) -> Json:
        """Return the Instance's document."""
        return {
            "apiVersion": "groundcrew/v1",
            "kind": "Instance",
            "metadata": {"name": place.name},
            "spec": {
                "team": place.team,
                "kubernetes": {"namespace": place.namespace, "release": place.release.name},
                "api": {"url": place.airflow.url, "credentials": "airflow"},
                "maintenance": {
                    "drain": {"timeout": "30s", "onTimeout": "abort"},
                    "probe": {"timeout": "40s"},
                },
                **spec,
            },
        }

    # --------------------------------------------------------------------------- environments

    def package(self, team: str, version: str, text: str = GOOD, preamble: str = "") -> None:
        """Write the team's package `acme`."""
        folder = self.repo / "teams" / team / "packages" / "acme"
        shutil.rmtree(folder, ignore_errors=True)
        modules = {"acme/__init__.py": text.format(version=version)}
        write_package(folder, "acme", version, modules)
        backend = folder / "backend.py"
        backend.write_text(preamble + backend.read_text())

    def environment(
        self, team: str, *instances: str, version: str, text: str = GOOD, preamble: str = ""
    ) -> None:
        """Write the team's environment, which requires `acme`."""
        self.package(team, version, text, preamble)
        document = {
            "apiVersion": "groundcrew/v1",
            "kind": "Environment",
            "metadata": {"name": team},
            "spec": {
                "requirements": ["acme @ ./packages/acme"],
                "rollout": [{"instances": list(instances)}],
            },
        }
        self.write(f"teams/{team}/{team}.yaml", document)

    def write(self, path: str, document: Json) -> None:
        """Write a definition."""
        (self.repo / path).parent.mkdir(parents=True, exist_ok=True)
        (self.repo / path).write_text(yaml.safe_dump(document))

    def commit(self, message: str = "change") -> str:
        """Commit all changes; return the revision."""
        self._git("add", "-A")
        self._git(*IDENTITY, "commit", "-q", "-m", message)
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=self.repo, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    # --------------------------------------------------------------------------------- daemon

    def settings(self, state: str = "state", **sections: Any) -> Path:
        """Write the settings of a daemon with its own state directory."""
        clusters: dict[str, Any] = (
            {"clusters": {"lab": {}}} if "kubernetes" not in self.more else {}
        )
        document: dict[str, Any] = {
            "state_dir": str(self.root / state),
            "share": str(self.share.root),
            "secrets_dir": str(self.root / "secrets"),
            "git": {"url": str(self.repo), "poll_interval": 1.0},
            "http": {"enabled": False},
            "activation": {"retry_first": 0.5, "settle": 0, "watch": 0},
            "kubernetes": {
                "kubeconfig": str(self.kubeconfig),
                "jobs": {"namespace": self.builds, "index_port": 0, "cpu": "1"},
                **clusters,
            },
        }
        for more in (self.more, sections):
            for key, value in more.items():
                known = document.get(key)
                document[key] = {**known, **value} if isinstance(known, dict) else value
        path = self.root / f"{state}.toml"
        path.write_text(tomli_w.dumps(document))
        return path

    def grant(self) -> None:
        """Give the daemon an account with the chart's roles for all its namespaces."""
        self.user, token = rights(
            self.lab,
            sorted({target.namespace for target in self.places.values()}),
            self.builds,
            self.user.split(":")[2] if self.user else "",
        )
        self.lab.plane.kubeconfig(self.kubeconfig, token=token)

    def pods(self, name: str) -> str:
        """Return the pods of an instance, one per line."""
        lines = []
        for pod in self.lab.pods(self.places[name].namespace):
            meta, status = pod["metadata"], pod["status"]
            ones = [
                (c["name"], c["ready"], c["restartCount"], c["state"])
                for c in status.get("containerStatuses", [])
            ]
            gone = meta.get("deletionTimestamp", "")
            lines.append(f"{meta['name']} {gone} {meta.get('annotations')} {ones}")
        return "\n".join(lines)

    @contextmanager
    def daemon(
        self, state: str = "state", *, freeze: str = "", **sections: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a daemon; stop it by SIGTERM at the end, and show its log after a failure.

        `freeze`: the failpoint at which it stops until SIGCONT.
        """
        if not self.user:
            self.grant()
        config = self.settings(state, **sections)
        log = self.root / f"{state}.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDCREW_")}
        if freeze:
            kept |= {"GROUNDCREW_FAILPOINT": freeze, "GROUNDCREW_FAILPOINT_FREEZES": "1"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "reconciler.cli", "run"],
                env={**kept, "GROUNDCREW_CONFIG": str(config)},
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        except BaseException:
            sys.stderr.write(log.read_text()[-6000:])
            raise
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(45)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def store(self) -> Store:
        """Return the records, with one engine for all queries."""
        if self._store is None:
            self._store = Store(self.database)
        return self._store

    def record(self, name: str) -> InstanceRecord | None:
        """Return an instance's current record, or None."""
        try:
            return self.store().load().instances.get(name)
        except Exception:  # the daemon has not made its tables yet
            return None

    def until(
        self, name: str, holds: Callable[[InstanceRecord], object], what: str, seconds: float = 90
    ) -> InstanceRecord:
        """Wait until something is true of an instance's record, and return it."""

        def look() -> InstanceRecord | None:
            record = self.record(name)
            return record if record is not None and holds(record) else None

        try:
            return wait_for(look, seconds, f"{name}: {what}")
        except AssertionError:
            record = self.record(name)
            sys.stderr.write(
                f"{record and record.activation}\n{self.events()}\n{self.pods(name)}\n"
            )
            raise

    def active(self, name: str, version: str, seconds: float = 90) -> InstanceRecord:
        """Wait until an instance is active on a version of `acme`."""

        def holds(record: InstanceRecord) -> bool:
            builds = self.store().load().builds.values()
            packages = {b.build_id: dict(b.packages) for b in builds}
            there = packages.get(record.current.build or "", {}).get("acme") == version
            return bool(there and record.activation is None)

        return self.until(name, holds, f"active on acme {version}", seconds)

    def events(self) -> str:
        """Return the newest events, one per line."""
        events = self.store().events(limit=40, newest_first=True)
        return "\n".join(f"{e.kind} {e.object} {e.reason_name} {e.message}" for e in events)

    def loaded(self, name: str, since: int = 0) -> Mapping[str, str]:
        """Return the version of `acme` that each component of an instance loaded last."""
        return {
            said["component"]: said["acme"]
            for said in self.places[name].airflow.state.loaded[since:]
        }
