"""Settings: `GROUNDCREW_*` variables (sections by a double underscore) over `groundcrew.toml`.

Every value that is a secret lives in a file below `secrets_dir`, never here:
`<secrets_dir>/<team>/<name>/{username,password,token}` for a team's indexes and Airflow API,
`<secrets_dir>/git/{username,password,token,ssh-privatekey,known_hosts}` for the environments repo,
`<secrets_dir>/hooks/{github,gitlab}`, `<secrets_dir>/api/tokens`, `<secrets_dir>/forge/token` for
commit statuses, and for each route of messages `<secrets_dir>/<secret>/{url,key}`.
The layout is that of mounted Kubernetes secrets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from reconciler.core.definitions import IN_CLUSTER


def config_path() -> Path:
    """Return the path of the settings file, whether or not it exists."""
    return Path(os.environ.get("GROUNDCREW_CONFIG", "groundcrew.toml"))


class Section(BaseModel):
    """Part of the settings; unknown keys are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GitSettings(Section):
    """Location of the environments repo, and limits for reading it."""

    url: str = Field("", description="https, ssh, git@host:path, file:// or an absolute path")
    branch: str = Field("main", description="the branch that counts")
    poll_interval: float = Field(10.0, gt=0, description="seconds between two polls")
    timeout: float = Field(60.0, gt=0, description="seconds one git operation may take")
    allow_schemes: tuple[str, ...] = Field(
        ("https", "ssh", "file"), description="of `url`; another one is refused"
    )
    max_blob_bytes: int = Field(1 << 20, gt=0, description="larger definition files are refused")
    max_package_bytes: int = Field(64 << 20, gt=0, description="limit of one in-repo package")


class BuilderSettings(Section):
    """Construction of builds."""

    parallel: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="builds at once on this machine, fair between teams",
    )
    sandbox: Literal["auto", "require", "off"] = Field(
        "auto",
        description="of builds: `require` refuses to start where they cannot be confined, `auto` "
        "warns, `off` does not confine them",
    )
    user: str = Field(
        "nobody", min_length=1, description="whom builds run as when the daemon is root; not root"
    )
    readable: tuple[Path, ...] = Field(
        (),
        description="further files and folders that builds may read, such as libraries in /opt",
    )
    default_index: str = Field("", description="the public index; empty: uv's own default")
    maven_repository: str = Field("", description="empty: Maven Central")
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="globs of hosts, or host:port, that indexes and files may be on although their "
        "address is loopback or link-local, or a public index leads to a private one",
    )
    resolve_timeout: float = Field(120.0, gt=0, description="seconds of one resolution")
    build_timeout: float = Field(900.0, gt=0, description="seconds to build one wheel from source")
    verify_timeout: float = Field(600.0, gt=0, description="seconds of one verification")
    memory_bytes: int = Field(4 << 30, gt=0, description="limit of one build process")
    processes: int = Field(
        1024,
        gt=0,
        description="processes and threads of one confined build command; when the daemon is root, "
        "of all that `user` runs",
    )
    file_bytes: int = Field(2 << 30, gt=0, description="largest file a build may write")
    cache_dir: Path | None = Field(None, description="default: <state_dir>/cache")


class LocalSettings(Section):
    """Interpreters and commands that instances with `local:` may run on this machine."""

    allow: tuple[str, ...] = Field(
        (), description="path globs of interpreters and commands that may be run; none by default"
    )


class JobSettings(Section):
    """Jobs in which builds for instances on Kubernetes run."""

    namespace: str = Field("groundcrew-builds", description="in every cluster; nothing else in it")
    deadline: float = Field(3600.0, gt=0, description="seconds after which a Job is ended")
    start_timeout: float = Field(300.0, gt=0, description="seconds until its pod must run")
    idle: float = Field(60.0, gt=0, description="seconds without the daemon after which it ends")
    ttl: int = Field(600, ge=0, description="seconds an ended Job is kept to be looked at")
    cpu: str = Field("2", description="CPU limit, a Kubernetes quantity")
    cpu_request: str = Field(
        "1m",
        description="CPU that a node must have free for a Job, and a Job's weight where CPU is "
        "short: by default it has no more than all pods without requests together",
    )
    memory: str = Field("4Gi", description="memory limit, a Kubernetes quantity")
    memory_request: str = Field("512Mi", description="memory that a node must have free for a Job")
    priority_class: str = Field(
        "", description="PriorityClass of the Jobs' pods; the chart makes one below all others"
    )
    scratch: str = Field("8Gi", description="limit of local disk, a Kubernetes quantity")
    run_as: Literal["image", "namespace"] = Field(
        "image",
        description="the user of Airflow's own pods, or whom the Jobs' namespace says (OpenShift)",
    )
    pull_secrets: tuple[str, ...] = Field((), description="secrets in the Jobs' namespace")
    node_selector: dict[str, str] = Field(default_factory=dict, description="of their pods")
    tolerations: tuple[dict[str, Any], ...] = Field((), description="of their pods")
    index_port: int = Field(8086, ge=0, le=65535, description="where Jobs read packages; 0: any")


class ClusterSettings(Section):
    """Limits of one cluster, and the daemon's address for its pods."""

    parallel_builds: int = Field(
        4,
        ge=1,
        description="Jobs at once: each build and each inspection has one at a time",
    )
    parallel_activations: int = Field(8, ge=1, description="instances at once")
    request_timeout: float = Field(15.0, gt=0, description="seconds of one API request")
    schedule_timeout: float = Field(
        60.0, ge=0, description="seconds a pod may find no node, while a cluster grows"
    )
    index_host: str = Field(
        "", description="the daemon's address for this cluster's Jobs; empty: POD_IP, or loopback"
    )


class KubernetesSettings(Section):
    """Instances with `kubernetes:`. The share is mounted at the same path in every pod: `share`."""

    kubeconfig: Path | None = Field(
        None, description="contexts of further clusters; empty: KUBECONFIG or ~/.kube/config"
    )
    clusters: dict[str, ClusterSettings] = Field(
        default_factory=dict, description="by context; `in-cluster` is the daemon's own cluster"
    )
    volume: dict[str, Any] = Field(
        default_factory=lambda: {"persistentVolumeClaim": {"claimName": "groundcrew-share"}},
        description="the share as a Kubernetes volume source, in every namespace",
    )
    jobs: JobSettings = JobSettings()
    verify_dags: bool = Field(
        True,
        description="parse each release's DAGs with a build before the switch, in a Job in the "
        "release's namespace",
    )

    def cluster(self, context: str | None) -> ClusterSettings:
        """Return the limits of a cluster; None is the daemon's own."""
        return self.clusters.get(context or IN_CLUSTER, ClusterSettings())

    @property
    def builds_at(self) -> dict[str, int]:
        """The number of parallel builds by cluster, for the clusters that are configured."""
        return {name: found.parallel_builds for name, found in self.clusters.items()}

    @property
    def activations_at(self) -> dict[str, int]:
        """The number of parallel activations by cluster, for the clusters that are configured."""
        return {name: found.parallel_activations for name, found in self.clusters.items()}


class HttpSettings(Section):
    """The daemon's HTTP server."""

    host: str = Field("127.0.0.1", description="where it listens; `0.0.0.0` is everywhere")
    port: int = Field(8085, ge=0, le=65535, description="0: any free port")
    enabled: bool = Field(True, description="metrics, webhooks, API and pages; all or nothing")
    read: Literal["auto", "token", "anyone"] = Field(
        "auto",
        description="who may read pages and API: `token` whoever has a token, `anyone` everybody; "
        "`auto` is `anyone` on loopback while there is no tokens file, else `token`",
    )
    metrics: Literal["read", "anyone"] = Field(
        "read",
        description="who may read `/metrics`, which names objects: `read` as `read` says, such as "
        "a Prometheus with a token, `anyone` everybody",
    )
    user_header: str = Field(
        "", description="where an authenticating proxy names the user; empty: not believed"
    )
    proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"), description="addresses or networks from which user_header is believed"
    )
    operators: tuple[str, ...] = Field(
        (), description="users named by the proxy who may operate; all others read"
    )


class ActivationSettings(Section):
    """Limits of activations."""

    settle: float = Field(
        30.0,
        ge=0,
        description="seconds that each restarted pod must stay up before its instance is healthy",
    )
    watch: float = Field(
        120.0,
        ge=0,
        description="seconds that an instance is watched once its pools are restored; if it does "
        "not stay healthy it goes back",
    )
    parallel: int = Field(8, ge=1, description="activations at once")
    retry_first: float = Field(15.0, gt=0, description="seconds before a first retry; doubles")
    retry_most: float = Field(1800.0, gt=0, description="seconds that it doubles up to")


class GcSettings(Section):
    """Garbage collection of the share."""

    interval: float = Field(3600.0, gt=0, description="seconds between two collections")
    grace: float = Field(86400.0, ge=0, description="seconds kept beyond the last possible use")
    keep: int = Field(3, ge=1, description="newest builds kept per environment")


class QuotaSettings(Section):
    """Limits on how much of the share a team's builds may use. Shared files count for each team."""

    bytes: int = Field(0, ge=0, description="of each team; 0: no limit")
    teams: dict[str, int] = Field(default_factory=dict, description="of single teams, in bytes")

    def of(self, team: str) -> int:
        """Return the quota of a team in bytes; 0 means no limit."""
        return self.teams.get(team, self.bytes)


DIRECTORY = r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$"
"""Directory of a secret below `secrets_dir`: `slack`, or `<team>/slack`."""

LONGEST_LEASE = 300.0  # seconds
STATUSES = "commit-status"
"""Route name of commit statuses in the outbox; no configured route may have this name."""


class RouteSettings(Section):
    """Receiver of notifications: which teams and severities it gets, and its address."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="the log says it")
    kind: Literal["slack", "webhook"] = Field(
        "slack", description="`webhook` is JSON for programs of your own"
    )
    secret: str = Field("slack", pattern=DIRECTORY, description="its directory with the file `url`")
    channel: str = Field(
        "",
        pattern=r"^(#?[\w.-]{1,80})?$",
        description="Slack by a bot, with threads: the channel's id; `secret` has the file `token`",
    )
    teams: tuple[str, ...] = Field(
        ("*",), description="globs; what is of no team goes to routes that name `*`"
    )
    severities: tuple[Literal["info", "warning", "critical"], ...] = Field(
        ("info", "warning", "critical"), description="what is of another severity is not sent there"
    )


class NotifySettings(Section):
    """Notifications for people: the routes, and the threshold for digests."""

    routes: tuple[RouteSettings, ...] = Field(
        (RouteSettings(name="slack"),),
        description="each a table as below; unset: everything goes to `slack`",
    )
    digest_above: int = Field(5, ge=1, description="more facts at once than this are one message")
    digest_seconds: float = Field(
        60.0, ge=0, description="how long facts are gathered after a route was told that many"
    )
    log_lines: int = Field(12, ge=0, le=100, description="last lines of a failed build's log")
    commit_url: str = Field(
        "", description="a commit's page, with {revision}; empty: found from git.url"
    )

    @model_validator(mode="after")
    def _names(self) -> NotifySettings:
        names = [route.name for route in self.routes]
        wrong = sorted({n for n in names if names.count(n) > 1 or n == STATUSES})
        if wrong:
            raise ValueError(f"the name of a route is taken: {', '.join(wrong)}")
        channels = [route.name for route in self.routes if route.kind != "slack" and route.channel]
        if channels:
            raise ValueError(f"only a route of kind slack has a channel: {', '.join(channels)}")
        return self


class StatusSettings(Section):
    """Outcomes of commits as commit statuses on the forge that holds the environments repo."""

    forge: Literal["", "github", "gitlab"] = Field("", description="empty: no statuses")
    api_url: str = Field("", description="empty: the forge's public service")
    project: str = Field("", description="owner/name or group/…/name; empty: found from git.url")
    secret: str = Field(
        "forge", pattern=DIRECTORY, description="its directory with the file `token`"
    )
    context: str = Field("groundcrew", min_length=1, max_length=40, description="its statuses")


class Settings(BaseSettings):
    """All settings. Precedence: arguments, `GROUNDCREW_*`, `groundcrew.toml`, defaults."""

    model_config = SettingsConfigDict(
        env_prefix="GROUNDCREW_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    state_dir: Path = Field(
        Path("/var/lib/groundcrew"), description="records, caches, logs; local disk, not the share"
    )
    share: Path = Field(
        Path("/srv/groundcrew"),
        description="the fileshare as the daemon mounts it; Airflow must see it at the same path",
    )
    secrets_dir: Path = Field(
        Path("/etc/groundcrew/secrets"), description="files, laid out as Kubernetes mounts secrets"
    )
    database: str = Field("", description="empty: SQLite in state_dir; or postgresql+psycopg://…")
    public_url: str = Field("", description="how people reach the daemon, for links in messages")
    prune_fraction: float = Field(
        0.5,
        gt=0,
        le=1,
        description="a revision that loses more than this of all objects, of the environments or "
        "of the instances is held",
    )
    lease_ttl: float = Field(
        10.0,
        gt=1,
        le=LONGEST_LEASE,
        description="seconds after which another replica takes over from a dead leader",
    )
    log_format: Literal["text", "json"] = Field("text", description="`json`: one object a line")
    git: GitSettings = GitSettings()
    builder: BuilderSettings = BuilderSettings()
    local: LocalSettings = LocalSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    http: HttpSettings = HttpSettings()
    activation: ActivationSettings = ActivationSettings()
    gc: GcSettings = GcSettings()
    quota: QuotaSettings = QuotaSettings()
    notify: NotifySettings = NotifySettings()
    commit_status: StatusSettings = StatusSettings()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database or f"sqlite:///{self.state_dir / 'groundcrew.db'}"

    @property
    def database_file(self) -> Path | None:
        """The file of SQLite, or None for any other database."""
        file = self.database_url.removeprefix("sqlite:///")
        return Path(file) if file != self.database_url else None

    @property
    def cache_dir(self) -> Path:
        """The local directory that caches uv's files, downloads and unpacked wheels."""
        return self.builder.cache_dir or self.state_dir / "cache"

    @property
    def hidden(self) -> list[Path]:
        """Paths that no build may see: secrets, the daemon's records, caches and configuration."""
        places = [self.secrets_dir, self.cache_dir, self.state_dir, config_path()]
        kubeconfigs = os.environ.get("KUBECONFIG", "").split(os.pathsep)
        places += [Path(k) for k in (str(self.kubernetes.kubeconfig or ""), *kubeconfigs) if k]
        if self.database and self.database_file is not None:
            places.append(self.database_file)
        return [place.absolute() for place in places]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read `groundcrew.toml` (or `GROUNDCREW_CONFIG`); environment variables override it."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_path())
