"""DAGs from git, in the shape of the official chart's git-sync: an emptyDir and two containers.

The image is a stand-in for git-sync 4 that reads the same variables and clones with real git.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.harness.kube_api import Json
from tests.harness.node.images import debian, write_image
from tests.harness.node.programs import cache
from tests.harness.node.runtime import Runtime

IMAGE = "example.test/git-sync:1"  # increase it if the image is made differently
USER = 65533
FOLDER = "/opt/airflow/dags/repo"
SCRIPT = """\
#!/bin/sh
set -eu
umask 0022
export HOME=/tmp
cd "$GITSYNC_ROOT"
[ -d .repo ] || git init --quiet --bare .repo
while :; do
    git -C .repo fetch --quiet --depth "$GITSYNC_DEPTH" "$GITSYNC_REPO" "$GITSYNC_REF"
    commit=$(git -C .repo rev-parse FETCH_HEAD)
    [ -d "$commit" ] || git -C .repo worktree add --quiet --detach "../$commit" "$commit"
    ln -s "$commit" .link
    mv -T .link "$GITSYNC_LINK"
    [ "${GITSYNC_ONE_TIME:-false}" = false ] || exit 0
    sleep "${GITSYNC_PERIOD%s}"
done
"""


def load_git_sync(runtime: Runtime) -> None:
    """Make the image, once, and load it into the node."""
    if IMAGE in runtime.images():
        return
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        root = Path(work) / "root"
        subprocess.run(["cp", "-a", str(debian("git")), str(root)], check=True, timeout=300)
        (root / "git-sync").write_text(SCRIPT)
        (root / "git-sync").chmod(0o755)
        config = {"User": str(USER), "Entrypoint": ["/git-sync"]}
        runtime.load(write_image(Path(work) / "image.tar", IMAGE, root, config))


def with_git_sync(pod: Json, url: str) -> Json:
    """Return a pod whose DAGs two containers fetch: one before the others, one beside them."""
    container = {
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "GITSYNC_REPO", "value": url},
            {"name": "GITSYNC_REF", "value": "main"},
            {"name": "GITSYNC_DEPTH", "value": "1"},
            {"name": "GITSYNC_ROOT", "value": "/git"},
            {"name": "GITSYNC_LINK", "value": "repo"},
            {"name": "GITSYNC_PERIOD", "value": "5s"},
        ],
        "securityContext": {"runAsUser": USER},
        "volumeMounts": [{"name": "dags", "mountPath": "/git"}],
    }
    once = {"name": "GITSYNC_ONE_TIME", "value": "true"}
    first = {**container, "name": "git-sync-init", "env": [*container["env"], once]}
    volumes = [v for v in pod["volumes"] if v["name"] != "dags"]
    return {
        **pod,
        "initContainers": [first],
        "containers": [*pod["containers"], {**container, "name": "git-sync"}],
        "volumes": [*volumes, {"name": "dags", "emptyDir": {}}],
    }
