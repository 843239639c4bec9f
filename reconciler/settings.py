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

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
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

    url: str = Field(
        "",
        description="URL of the environments repo: https, ssh, git@host:path, file:// or an "
        "absolute path",
    )
    branch: str = Field("main", description="branch to read")
    poll_interval: float = Field(10.0, gt=0, description="seconds between two polls")
    timeout: float = Field(60.0, gt=0, description="time limit of one git operation, in seconds")
    allow_schemes: tuple[str, ...] = Field(
        ("https", "ssh", "file"), description="URL schemes that are allowed for `url`"
    )
    max_blob_bytes: int = Field(
        1 << 20, gt=0, description="largest definition file that is accepted, in bytes"
    )
    max_package_bytes: int = Field(
        64 << 20, gt=0, description="largest in-repo package that is accepted, in bytes"
    )


class BuilderSettings(Section):
    """Construction of builds."""

    parallel: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="number of builds at once on this machine, shared fairly between teams",
    )
    sandbox: Literal["auto", "require", "off"] = Field(
        "auto",
        description="sandbox for builds: `require` refuses to start if builds cannot be "
        "confined, `auto` only warns, `off` runs them unconfined",
    )
    user: str = Field(
        "nobody",
        min_length=1,
        description="user that builds run as if the daemon is root; may not be root",
    )
    readable: tuple[Path, ...] = Field(
        (),
        description="additional files and folders that builds may read, such as libraries in /opt",
    )
    default_index: str = Field("", description="URL of the public index; empty: the default of uv")
    maven_repository: str = Field(
        "", description="URL of the Maven repository for jars; empty: Maven Central"
    )
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="globs of hosts, or of host:port, that builds may reach even if the address "
        "is loopback or link-local, or if a public index redirects to a private "
        "address",
    )
    resolve_timeout: float = Field(
        120.0, gt=0, description="time limit of one resolution, in seconds"
    )
    build_timeout: float = Field(
        900.0, gt=0, description="time limit for building one wheel from source, in seconds"
    )
    verify_timeout: float = Field(
        600.0, gt=0, description="time limit of one verification, in seconds"
    )
    memory_bytes: int = Field(
        4 << 30, gt=0, description="memory limit of one build process, in bytes"
    )
    processes: int = Field(
        1024,
        gt=0,
        description="limit on processes and threads of one confined build command; if the "
        "daemon is root, of everything that `user` runs",
    )
    file_bytes: int = Field(
        2 << 30, gt=0, description="largest file that a build may write, in bytes"
    )
    team_disk_bytes: int = Field(
        32 << 30,
        ge=0,
        description="what the running builds of one team may take of this machine's disk, with its "
        "cache of what they made, in bytes; 0: no limit",
    )
    cache_dir: Path | None = Field(
        None, description="folder for caches; default: <state_dir>/cache"
    )


class LocalSettings(Section):
    """Interpreters and commands that instances with `local:` may run on this machine."""

    allow: tuple[str, ...] = Field(
        (),
        description="path globs of the interpreters and commands that may be run; by default none",
    )


class JobSettings(Section):
    """Jobs in which builds for instances on Kubernetes run."""

    namespace: str = Field(
        "groundcrew-builds",
        description="namespace for the Jobs, in every cluster; it should contain nothing else",
    )
    deadline: float = Field(3600.0, gt=0, description="time limit of a Job, in seconds")
    start_timeout: float = Field(
        300.0, gt=0, description="time limit for a Job's pod to start running, in seconds"
    )
    idle: float = Field(
        60.0,
        gt=0,
        description="seconds without contact to the daemon after which a Job ends by itself",
    )
    ttl: int = Field(600, ge=0, description="seconds for which an ended Job is kept for inspection")
    cpu: str = Field("2", description="CPU limit, as a Kubernetes quantity")
    cpu_request: str = Field(
        "1m",
        description="CPU request, as a Kubernetes quantity. It is also the Job's weight when "
        "CPU is scarce; the default gives a Job no more than all pods without "
        "requests have together",
    )
    memory: str = Field("4Gi", description="memory limit, as a Kubernetes quantity")
    memory_request: str = Field("512Mi", description="memory request, as a Kubernetes quantity")
    priority_class: str = Field(
        "", description="PriorityClass of the Jobs' pods; the chart creates one below all others"
    )
    scratch: str = Field("8Gi", description="limit on local disk, as a Kubernetes quantity")
    run_as: Literal["image", "namespace"] = Field(
        "image",
        description="user of the Jobs: `image` is the user of Airflow's own pods, `namespace` "
        "the user that the Jobs' namespace assigns (OpenShift)",
    )
    pull_secrets: tuple[str, ...] = Field(
        (), description="image pull secrets in the Jobs' namespace"
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="node selector of the Jobs' pods"
    )
    tolerations: tuple[dict[str, Any], ...] = Field((), description="tolerations of the Jobs' pods")
    index_port: int = Field(
        8086, ge=0, le=65535, description="port at which Jobs read packages; 0: any free port"
    )


class ClusterSettings(Section):
    """Limits of one cluster, and the daemon's address for its pods."""

    parallel_builds: int = Field(
        4,
        ge=1,
        description="number of Jobs at once; each build and each inspection has one at a time",
    )
    parallel_activations: int = Field(
        8, ge=1, description="number of instances that are activated at once"
    )
    request_timeout: float = Field(
        15.0, gt=0, description="time limit of one API request, in seconds"
    )
    schedule_timeout: float = Field(
        60.0,
        ge=0,
        description="seconds for which a pod may remain without a node, for clusters that add "
        "nodes on demand",
    )
    index_host: str = Field(
        "", description="address of the daemon for this cluster's Jobs; empty: POD_IP, or loopback"
    )


class KubernetesSettings(Section):
    """Instances with `kubernetes:`. The share is mounted at the same path in every pod: `share`."""

    kubeconfig: Path | None = Field(
        None,
        description="kubeconfig file with the contexts of further clusters; empty: KUBECONFIG "
        "or ~/.kube/config",
    )
    clusters: dict[str, ClusterSettings] = Field(
        default_factory=dict,
        description="limits of each cluster by kubeconfig context; `in-cluster` is the daemon's "
        "own cluster",
    )
    volume: dict[str, Any] = Field(
        default_factory=lambda: {"persistentVolumeClaim": {"claimName": "groundcrew-share"}},
        description="the share as a Kubernetes volume source, the same in every namespace",
    )
    jobs: JobSettings = JobSettings()
    verify_dags: bool = Field(
        True,
        description="whether each release's DAGs are parsed with a new build before the switch, "
        "in a Job in the release's namespace",
    )

    def cluster(self, context: str | None) -> ClusterSettings:
        """Return the limits of a cluster; None is the daemon's own."""
        return self.clusters.get(context or IN_CLUSTER, ClusterSettings())

    @property
    def builds_at(self) -> dict[str, int]:
        """The number of parallel builds by cluster, for the clusters that are configured."""
        return {name: cluster.parallel_builds for name, cluster in self.clusters.items()}

    @property
    def activations_at(self) -> dict[str, int]:
        """The number of parallel activations by cluster, for the clusters that are configured."""
        return {name: cluster.parallel_activations for name, cluster in self.clusters.items()}


class HttpSettings(Section):
    """The daemon's HTTP server."""

    host: str = Field("127.0.0.1", description="address to listen on; `0.0.0.0` is all addresses")
    port: int = Field(8085, ge=0, le=65535, description="port to listen on; 0: any free port")
    enabled: bool = Field(
        True, description="whether the server runs, with metrics, webhooks, API and pages"
    )
    read: Literal["auto", "token", "anyone"] = Field(
        "auto",
        description="who may read pages and API: `token` means only holders of a token, "
        "`anyone` means everybody; `auto` is `anyone` on loopback if there is no "
        "tokens file, otherwise `token`",
    )
    metrics: Literal["read", "anyone"] = Field(
        "read",
        description="who may read `/metrics`, which contains names of objects: `read` applies "
        "the setting `read`, so that Prometheus may need a token; `anyone` means "
        "everybody",
    )
    user_header: str = Field(
        "",
        description="header in which an authenticating proxy names the user; empty: none is "
        "trusted",
    )
    proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"),
        description="addresses or networks of the proxies whose user_header is trusted",
    )
    operators: tuple[str, ...] = Field(
        (), description="users, as named by the proxy, who may operate; all others may only read"
    )


class ActivationSettings(Section):
    """Limits of activations."""

    settle: float = Field(
        30.0,
        ge=0,
        description="seconds for which each restarted pod must stay up before its instance "
        "counts as healthy",
    )
    watch: float = Field(
        120.0,
        ge=0,
        description="seconds for which an instance is watched after its pools are restored; it "
        "is rolled back if it does not stay healthy",
    )
    parallel: int = Field(8, ge=1, description="number of activations at once")
    retry_first: float = Field(
        15.0,
        gt=0,
        description="seconds before the first retry; each further retry waits twice as long",
    )
    retry_most: float = Field(
        1800.0, gt=0, description="longest wait between two retries, in seconds"
    )


class GcSettings(Section):
    """Garbage collection of the share."""

    interval: float = Field(3600.0, gt=0, description="seconds between two collections")
    grace: float = Field(
        86400.0, ge=0, description="seconds for which builds are kept after their last possible use"
    )
    keep: int = Field(3, ge=1, description="number of newest builds kept for each environment")


class QuotaSettings(Section):
    """Limits on how much of the share a team's builds may use. Shared files count for each team."""

    bytes: int = Field(0, ge=0, description="quota of each team in bytes; 0: no limit")
    teams: dict[str, int] = Field(
        default_factory=dict, description="quotas of individual teams in bytes, by team"
    )

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

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        description="name of the route, as it appears in logs and metrics",
    )
    kind: Literal["slack", "webhook"] = Field(
        "slack", description="`slack`, or `webhook`, which sends JSON to a program of your own"
    )
    secret: str = Field(
        "slack",
        pattern=DIRECTORY,
        description="directory of the secret below `secrets_dir`; it has a file `url`",
    )
    channel: str = Field(
        "",
        pattern=r"^(#?[\w.-]{1,80})?$",
        description="for a Slack bot with threads: the id of the channel; `secret` then has a "
        "file `token`",
    )
    teams: tuple[str, ...] = Field(
        ("*",), description="globs of teams; messages that belong to no team go to routes with `*`"
    )
    severities: tuple[Literal["info", "warning", "critical"], ...] = Field(
        ("info", "warning", "critical"), description="severities that are sent to this route"
    )


class NotifySettings(Section):
    """Notifications for people: the routes, and the threshold for digests."""

    routes: tuple[RouteSettings, ...] = Field(
        (RouteSettings(name="slack"),),
        description="routes, each a table as below; if unset, everything goes to `slack`",
    )
    digest_above: int = Field(
        5,
        ge=1,
        description="number of simultaneous messages above which they are sent as one digest",
    )
    digest_seconds: float = Field(
        60.0, ge=0, description="seconds for which further messages are collected after a digest"
    )
    log_lines: int = Field(
        12, ge=0, le=100, description="number of last lines of a failed build's log in a message"
    )
    commit_url: str = Field(
        "", description="URL of a commit's page, with {revision}; empty: derived from git.url"
    )
    file_url: str = Field(
        "",
        description="https URL of a file's page, with {revision}, {path} and {line}; empty: "
        "derived from git.url",
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

    forge: Literal["", "github", "gitlab"] = Field(
        "", description="forge that receives commit statuses; empty: none"
    )
    api_url: str = Field("", description="URL of the forge's API; empty: its public service")
    project: str = Field(
        "", description="owner/name or group/…/name of the project; empty: derived from git.url"
    )
    secret: str = Field(
        "forge",
        pattern=DIRECTORY,
        description="directory of the secret below `secrets_dir`; it has a file `token`",
    )
    context: str = Field(
        "groundcrew",
        min_length=1,
        max_length=40,
        description="context under which the statuses appear",
    )


class Settings(BaseSettings):
    """All settings. Precedence: arguments, `GROUNDCREW_*`, `groundcrew.toml`, defaults."""

    model_config = SettingsConfigDict(
        env_prefix="GROUNDCREW_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    state_dir: Path = Field(
        Path("/var/lib/groundcrew"),
        description="folder for records, caches and logs; on a local disk, not on the share",
    )
    share: Path = Field(
        Path("/srv/groundcrew"),
        description="the fileshare as mounted by the daemon; Airflow must see it at the same path",
    )
    secrets_dir: Path = Field(
        Path("/etc/groundcrew/secrets"),
        description="folder with the secrets as files, in the layout in which Kubernetes mounts "
        "them",
    )
    database: str = Field(
        "", description="postgresql+psycopg://… for PostgreSQL; empty: SQLite in state_dir"
    )
    public_url: str = Field(
        "", description="URL at which people reach the daemon, used for links in messages"
    )
    prune_fraction: float = Field(
        0.5,
        gt=0,
        le=1,
        description="a revision that removes more than this fraction of all objects, of the "
        "environments or of the instances is held until it is confirmed",
    )
    lease_ttl: float = Field(
        10.0,
        gt=1,
        le=LONGEST_LEASE,
        description="seconds after which another replica takes over from a leader that died",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`text`, or `json` for one JSON object per line"
    )
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

    @field_validator("share")
    @classmethod
    def _is_absolute(cls, share: Path) -> Path:
        if not share.is_absolute():
            raise ValueError(
                f"{str(share)!r} is relative; write the absolute path at which Airflow sees it too"
            )
        return share

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
        return [path.absolute() for path in places]

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
