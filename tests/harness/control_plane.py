"""Real Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler.

The programs come from `make envtest` (scripts/envtest/build prints where it put them). It is ready
in about ten seconds; all its data is below one directory and it ends with the process that started
it. Users come from a static token file, so that the audit log distinguishes them; service accounts
get their tokens by TokenRequest.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import urllib3
import yaml

from tests.harness.certificates import make_certificate
from tests.harness.kube_api import Api, Json, wait_for

VERSION = (Path(__file__).parents[2] / "scripts/envtest/version").read_text().strip()
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
PROGRAMS = ("etcd", "kube-apiserver", *CONTROLLERS)
SERVICES, FIRST_SERVICE = "10.255.0.0/24", "10.255.0.1"
MASTERS = "system:masters"
USERS = {  # name → groups
    "admin": MASTERS,
    "lab:kubelet": MASTERS,
    "system:kube-controller-manager": MASTERS,
    "system:kube-scheduler": MASTERS,
    "nobody": "lab:nobody",
}
SILENT = [
    "lab:kubelet",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:apiserver",
]


def assets() -> dict[str, Path] | None:
    """Return the programs of a control plane, or None unless all of them exist."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [cache / "groundcrew" / "envtest" / VERSION]
    if chosen := os.environ.get("KUBEBUILDER_ASSETS"):
        places.insert(0, Path(chosen))
    programs = {}
    for program in PROGRAMS:
        here = next((p / program for p in places if os.access(p / program, os.X_OK)), None)
        there = shutil.which(program) if program == "etcd" else None
        if here is None and there is None:
            return None
        programs[program] = here or Path(str(there))
    return programs


class ControlPlane:
    """Context manager for a control plane; `api` is the administrator's client.

    `address` is that of the API server: pods with their own network do not reach loopback.
    """

    def __init__(
        self, root: Path, programs: Mapping[str, Path], address: str = "127.0.0.1"
    ) -> None:
        self.root = root
        self.address = address
        self._programs = programs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self.etcd_port, self._peer_port, self.port = _free_ports(3)
        self.url = f"https://{address}:{self.port}"
        self.certificate, self.key = root / "tls.crt", root / "tls.key"

    # --------------------------------------------------------------------------------- start, stop

    def __enter__(self) -> ControlPlane:
        self.root.mkdir(parents=True, exist_ok=True)
        self._write_files()
        try:
            self._start("etcd", self._etcd())
            self.start_apiserver()
            self._start_controllers()
            self.api = self.client("admin")
            wait_for(self._bootstrapped, 40, "the API server's own roles and namespaces")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in reversed(list(self._processes)):
            self._stop(name, signal.SIGKILL)

    def start_apiserver(self) -> None:
        """Start the API server and wait until it is ready."""
        self._start("kube-apiserver", self._apiserver())
        wait_for(self._ready, 60, f"the API server's /readyz; see {self.root}/kube-apiserver.log")

    def stop_apiserver(self) -> None:
        """Kill the API server: connections are cut, and nothing responds."""
        self._stop("kube-apiserver", signal.SIGKILL)

    def restart_apiserver(self) -> None:
        """Kill the API server and start it again on the same port, with the same data.

        Controllers and scheduler are restarted with it: they would wait for up to a minute before
        they retry, and consider nodes lost whose leases expired meanwhile.
        """
        self.stop_apiserver()
        for name in CONTROLLERS:
            self._stop(name, signal.SIGKILL)
        self.start_apiserver()
        self._start_controllers()

    def memory(self) -> int:
        """Return the resident bytes of all its processes."""
        pages = 0
        for process in self._processes.values():
            pages += int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # ------------------------------------------------------------------------------------- clients

    def client(self, user: str = "admin", *, token: str = "") -> Api:
        """Return a client for one of USERS, or for any token."""
        return Api(self.url, self.certificate, token or self._tokens[user])

    def token_for(self, namespace: str, account: str, seconds: int = 3600) -> str:
        """Return a new token of a service account; the server's minimum is 600 seconds."""
        body = {"metadata": {"name": account}, "spec": {"expirationSeconds": seconds}}
        answer = self.api.create("serviceaccounts", namespace, body, "token")
        return str(answer["status"]["token"])

    def kubeconfig(
        self,
        path: Path,
        user: str = "admin",
        *,
        token: str = "",
        url: str = "",
        context: str = "lab",
        namespace: str = "default",
    ) -> Path:
        """Write a kubeconfig for a user or a token; `url` is that of a proxy with the same TLS."""
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": context,
                    "clusters": [
                        {
                            "name": context,
                            "cluster": {
                                "server": url or self.url,
                                "certificate-authority-data": base64.b64encode(
                                    self.certificate.read_bytes()
                                ).decode(),
                            },
                        }
                    ],
                    "users": [{"name": context, "user": {"token": token or self._tokens[user]}}],
                    "contexts": [
                        {
                            "name": context,
                            "context": {
                                "cluster": context,
                                "user": context,
                                "namespace": namespace,
                            },
                        }
                    ],
                }
            )
        )
        path.chmod(0o600)
        return path

    def audit(self, user: str = "", namespace: str = "") -> list[Json]:
        """Return audited requests in order: `verb`, `objectRef`, `user`, `responseStatus`, ….

        Each has `user.username` and `responseStatus.code`. A watch appears when it starts and when
        it ends. Control plane and kubelet are left out.
        """
        events = []
        for line in (self.root / "audit.log").read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last line may be half written
                event: dict[str, Any] = json.loads(line)
                if user and event["user"].get("username") != user:  # none: not authenticated
                    continue
                if namespace and event.get("objectRef", {}).get("namespace") != namespace:
                    continue
                events.append(event)
        return events

    # --------------------------------------------------------------------------------------- parts

    def _start(self, name: str, arguments: list[str]) -> None:
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with (self.root / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*guard, str(self._programs[name]), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                env={
                    "HOME": str(self.root),
                    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                    "GOMAXPROCS": "2",
                    "ETCD_UNSUPPORTED_ARCH": "arm64",
                },
            )

    def _stop(self, name: str, with_signal: signal.Signals) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(with_signal)
        process.wait(timeout=20)

    def _start_controllers(self) -> None:
        for name, arguments in zip(
            CONTROLLERS, (self._controller_manager(), self._scheduler()), strict=True
        ):
            self._start(name, arguments)

    def _ready(self) -> bool:
        process = self._processes["kube-apiserver"]
        if process.poll() is not None:
            log = (self.root / "kube-apiserver.log").read_text()[-3000:]
            raise AssertionError(f"the API server ended with {process.returncode}:\n{log}")
        pool = urllib3.PoolManager(ca_certs=str(self.certificate), retries=False)
        headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
        try:
            answer = pool.request("GET", self.url + "/readyz", headers=headers, timeout=10.0)
        except (urllib3.exceptions.HTTPError, OSError):
            return False
        finally:
            pool.clear()
        return answer.status == 200

    def _bootstrapped(self) -> bool:
        roles = self.api.get("clusterroles", "", "view")
        return bool(roles) and self.api.get("serviceaccounts", "default", "default") is not None

    def _write_files(self) -> None:
        names = f"IP:{self.address},IP:{FIRST_SERVICE},DNS:localhost,DNS:kubernetes.default.svc"
        make_certificate(self.certificate, self.key, "lab", names)
        lines = [
            f'{self._tokens[u]},{u},{i},"{group}"' for i, (u, group) in enumerate(USERS.items())
        ]
        (self.root / "tokens.csv").write_text("\n".join(lines) + "\n")
        (self.root / "audit.yaml").write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "audit.k8s.io/v1",
                    "kind": "Policy",
                    "omitStages": ["RequestReceived"],
                    "rules": [{"level": "None", "users": SILENT}, {"level": "Metadata"}],
                }
            )
        )
        for name in USERS:
            self.kubeconfig(self.root / f"{name.replace(':', '-')}.kubeconfig", name)

    def _etcd(self) -> list[str]:
        client = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        return [
            f"--data-dir={self.root}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _apiserver(self) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            *self._endpoints(),
            f"--kubelet-client-certificate={self.certificate}",
            f"--kubelet-client-key={self.key}",
            f"--tls-cert-file={self.certificate}",
            f"--tls-private-key-file={self.key}",
            f"--token-auth-file={self.root}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.key}",
            f"--service-account-key-file={self.certificate}",
            f"--service-cluster-ip-range={SERVICES}",
            "--allow-privileged=true",
            f"--audit-log-path={self.root}/audit.log",
            f"--audit-policy-file={self.root}/audit.yaml",
            "--default-not-ready-toleration-seconds=3",
            "--default-unreachable-toleration-seconds=3",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
        ]

    def _endpoints(self) -> list[str]:
        """Return options: endpoints of the service `kubernetes` may not be on loopback."""
        return ["--endpoint-reconciler-type=none"] if self.address == "127.0.0.1" else []

    def _controller_manager(self) -> list[str]:
        return [
            f"--kubeconfig={self.root}/system-kube-controller-manager.kubeconfig",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=300",
            "--kube-api-burst=500",
            f"--root-ca-file={self.certificate}",
            f"--service-account-private-key-file={self.key}",
            "--node-monitor-period=1s",
            "--concurrent-deployment-syncs=10",
            "--concurrent-statefulset-syncs=10",
        ]

    def _scheduler(self) -> list[str]:
        return [
            f"--kubeconfig={self.root}/system-kube-scheduler.kubeconfig",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=300",
            "--kube-api-burst=500",
        ]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
