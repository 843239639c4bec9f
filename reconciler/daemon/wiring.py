"""Composition of the daemon from the settings, without any decisions."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gitsource.source import Source
from metrics.exporter import Exporter, Sandboxing, Space
from metrics.notifier import Notifier
from reconciler.airflow.declared import Declarations
from reconciler.airflow.driver import Driver
from reconciler.airflow.local import LocalDriver
from reconciler.builder.builder import Builder
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.core.definitions import Instance
from reconciler.core.errors import Stalled
from reconciler.core.model import Records
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Base, Image, Runtime
from reconciler.daemon.adoption import Adoption
from reconciler.daemon.effects import BuildEffects, InstanceEffects
from reconciler.daemon.open_records import UNCONFINED
from reconciler.daemon.policy import policy_of
from reconciler.daemon.share import prepare_share
from reconciler.settings import Settings
from reconciler.share.logs import keep_log
from reconciler.share.share import Share
from reconciler.share.sizes import Sizes, check_quota
from reconciler.store.store import Store

if TYPE_CHECKING:
    from reconciler.daemon.clusters import ClusterWiring


class Wiring:
    """Components that the daemon uses, each created once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = policy_of(settings)
        self.store = Store(settings.database_url)
        self.share = Share(settings.share)
        self.source = Source(
            settings.git,
            settings.state_dir,
            settings.secrets_dir,
            lambda: {e.commit.revision for e in self.records().environments.values()},
        )
        self.check: Callable[[], None] = lambda: None  # raises if this daemon may not act
        self.share.check = self._may_act
        sandbox = Sandbox(settings.builder, settings.cache_dir, settings.hidden)
        self._unconfined = sandbox.unconfined
        self.builder = Builder(
            settings.builder,
            self.share,
            self.source.export,
            cache_dir=settings.cache_dir,
            secrets_dir=settings.secrets_dir,
            executor=sandbox,
            reserved=self.api_secrets,
        )
        declared = Declarations(settings.share, self.share.build)
        self._local = LocalDriver(
            settings.local,
            settings.secrets_dir,
            declared,
            check=self._may_act,
            share=settings.share,
            notes=settings.state_dir / "restarts",
            watch=settings.activation.watch,
        )
        self.adoption = Adoption(self.share)
        self.sizes = Sizes(self.share)
        self._declared = declared
        self._clusters: ClusterWiring | None = None
        self._lock = threading.Lock()
        self.wake: Callable[[], None] = lambda: None
        self.build_effects = BuildEffects(
            self.builder_for,
            self.store,
            self.adoption,
            self.check_quota,
            lambda key, path: keep_log(self.share, key, path),
        )
        self.instance_effects = InstanceEffects(
            self.share, self.inspect, self.driver, content=declared.content
        )
        self.exporter = Exporter(
            self.store,
            lambda: self.records(),  # noqa: PLW0108 - set later
            leader=lambda: self.leading,
            store_bytes=lambda: float(self.sizes.total),
            team_bytes=lambda: self.sizes.teams,
            quota_of=settings.quota.of,
            space=lambda: self.space,
            state_space=self.state_space,
            poll_interval=settings.git.poll_interval,
            sandbox=Sandboxing(settings.builder.sandbox, not sandbox.unconfined),
        )
        self.records: Callable[[], Records] = self.store.load
        self.leading = False
        self.space: Space | None = None
        self.notifier = Notifier(
            self.store,
            settings.secrets_dir,
            settings.public_url,
            notify=settings.notify,
            statuses=settings.commit_status,
            git_url=settings.git.url,
            log_of=self.log_of,
        )

    def _may_act(self) -> None:
        self.check()

    def api_secrets(self, team: str) -> set[str]:
        """Return the secrets of a team that its instances' APIs use, as last accepted."""
        instances = [i.definition for i in self.records().instances.values()]
        return {i.api.credentials for i in instances if i.team == team and i.api.credentials}

    def measure(self) -> None:
        """Measure the store's size, in total and by team."""
        self.sizes.look()

    def check_quota(self, team: str) -> None:
        """Raise Stalled("QuotaReached") if a team may not put more on the share."""
        quota = self.settings.quota.of(team)
        if quota:
            self.sizes.look()
            check_quota(self.sizes, team, quota)

    def measure_space(self) -> None:
        """Measure the share's free space. Raises Retryable if it does not respond."""
        size, free = self.share.space()
        self.space = Space(size, free, time.time())

    def state_space(self) -> Space | None:
        """Return the space of the state directory's file system; None if it cannot be read."""
        try:
            usage = shutil.disk_usage(self.settings.state_dir)
        except OSError:
            return None
        return Space(usage.total, usage.free, time.time())

    def prepare(self) -> None:
        """Create what the loop needs: directories, tables, the share's layout.

        Raises Stalled if that fails, so that the daemon does not start incompletely.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            make_private(self.settings.state_dir)
        except OSError as error:
            raise Stalled(
                Reason.STATE_UNWRITABLE,
                f"{self.settings.state_dir} cannot be written ({error.strerror}); make it writable "
                f"or set GROUNDCREW_STATE_DIR",
            ) from error
        self.store.migrate()
        if (self.store.named(UNCONFINED) or "") != self._unconfined:
            self.store.name(UNCONFINED, self._unconfined)
        prepare_share(self.share, self.store)

    @property
    def logs(self) -> Path:
        """The directory of build logs, one file per build key."""
        return self.settings.state_dir / "logs"

    def log_of(self, key: str) -> Path:
        """Return the path of one build's log."""
        return self.logs / f"{key}.log"

    def driver(self, instance: Instance) -> Driver:
        """Return the driver for an instance's kind of target."""
        return self._local if instance.local is not None else self.clusters().driver

    def builder_for(self, image: Image | None) -> Builder:
        """Return the builder for an image; None is this machine."""
        return self.builder if image is None else self.clusters().builder(image)

    def inspect(self, base: Base, team: str) -> Runtime:
        """Return the runtime of a base: what is installed in it."""
        if base.image is None:
            return self.builder.inspect(base.python)
        return self.clusters().inspect(base.image, team)

    def clusters(self) -> ClusterWiring:
        """Return the components for Kubernetes, created when first needed."""
        with self._lock:
            if self._clusters is None:
                from reconciler.daemon.clusters import ClusterWiring

                self._clusters = ClusterWiring(
                    self.settings,
                    self.share,
                    self.source.export,
                    reserved=self.api_secrets,
                    declared=self._declared,
                    check=self._may_act,
                    wake=lambda: self.wake(),  # noqa: PLW0108 - set later
                )
            return self._clusters

    def sweep(self) -> None:
        """End Jobs that an earlier leader left behind; without clusters there are none."""
        releases = [r.definition.kubernetes for r in self.store.load().instances.values()]
        targets = [target for target in releases if target is not None]
        if targets:
            self.clusters().sweep(targets)

    def close(self) -> None:
        """End the Jobs and close the connections to clusters."""
        with self._lock:
            clusters, self._clusters = self._clusters, None
        if clusters is not None:
            clusters.close()


def make_private(folder: Path) -> None:
    """Keep other users out of a folder, unless it is another user's that this one may write.

    A volume of Kubernetes belongs to root, and its group writes it. Raises OSError if the folder
    cannot be written.
    """
    try:
        folder.chmod(0o700)
    except PermissionError:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise
