"""The rooms, wired together from the settings; nothing here decides anything."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from gitsource.source import Source
from metrics.exporter import Exporter
from metrics.notifier import Notifier
from reconciler.airflow.declared import Declarations
from reconciler.airflow.driver import Driver
from reconciler.airflow.local import LocalDriver
from reconciler.builder.build import Builder
from reconciler.core.definitions import Environment, Instance
from reconciler.core.errors import Stalled
from reconciler.core.status import Status, status
from reconciler.core.world import Policy
from reconciler.daemon.adoption import Adoption
from reconciler.daemon.effects import BuildEffects, InstanceEffects
from reconciler.settings import Settings
from reconciler.share.share import Share
from reconciler.store.store import Store


class Rooms:
    """Every room the daemon uses, made once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = Policy(
            prune_fraction=settings.prune_fraction,
            parallel_builds=settings.builder.parallel,
            parallel_activations=settings.activation.parallel,
            retry_first=settings.activation.retry_first,
            retry_most=settings.activation.retry_most,
        )
        self.store = Store(settings.database_url)
        self.share = Share(settings.share)
        self.source = Source(settings.git, settings.state_dir, settings.secrets_dir)
        self.builder = Builder(
            settings.builder,
            self.share,
            self.source.export,
            cache_dir=settings.cache_dir,
            secrets_dir=settings.secrets_dir,
            hidden=(settings.state_dir,),
        )
        declared = Declarations(settings.share, self.share.build)
        self._local = LocalDriver(settings.local, settings.secrets_dir, declared)
        self.adoption = Adoption(self.share)
        self.build_effects = BuildEffects(self.builder, self.store, self.adoption)
        self.instance_effects = InstanceEffects(self.share, self.builder, self.driver)
        self.exporter = Exporter(
            self.store,
            self.store.load,
            self._status,
            leader=lambda: self.leading,
            store_bytes=lambda: self.store_bytes,
        )
        self.leading = False
        self.store_bytes = 0.0
        self.notifier = Notifier(self.store, settings.secrets_dir, settings.public_url)

    def _status(self) -> Status:
        return status(None, self.store.load(), time.time())

    def measure(self) -> None:
        """Look how much the store holds; 0.0 until this was called."""
        self.store_bytes = float(self.share.size())

    def prepare(self) -> None:
        """Make what must be there before the loop: directories, tables, the share's layout.

        Raises Stalled when that cannot be: the daemon does not start half.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.settings.state_dir.chmod(0o700)
        except OSError as error:
            raise Stalled(
                "StateUnwritable",
                f"{self.settings.state_dir} cannot be written ({error.strerror}); make it writable "
                f"or set GROUNDCREW_STATE_DIR",
            ) from error
        self.store.migrate()
        self.share.prepare()

    @property
    def logs(self) -> Path:
        """Where the logs of builds are, one per build key."""
        return self.settings.state_dir / "logs"

    def log_of(self, key: str) -> Path:
        """The log of one build."""
        return self.logs / f"{key}.log"

    def driver(self, instance: Instance) -> Driver:
        """The driver for an instance's kind of target."""
        if instance.local is not None:
            return self._local
        raise Stalled(
            "TargetNotSupported",
            f"instance {instance.name} is on Kubernetes, which this version cannot drive yet; use "
            f"`local:`",
            instance.place,
        )

    def lock_key(self, environment: Environment) -> str:
        """Under which digest an environment's locks are kept.

        A lock made with a team's credentials is that team's own; any other serves every team.
        """
        recipe = environment.recipe
        if not any(index.credentials for index in recipe.indexes):
            return recipe.digest
        return hashlib.sha256(f"{environment.team}\0{recipe.digest}".encode()).hexdigest()
