"""Settings: `GROUNDCREW_*` variables (sections by a double underscore) over `groundcrew.toml`.

Every value that is a secret lives in a file below `secrets_dir`, never here:
`<secrets_dir>/<team>/<name>/{username,password,token}` for a team's indexes and Airflow API,
`<secrets_dir>/git/{username,password,token,ssh-privatekey,known_hosts}` for the environments repo,
`<secrets_dir>/slack/url`, `<secrets_dir>/hooks/{github,gitlab}` and `<secrets_dir>/api/tokens`.
The layout is that of mounted Kubernetes secrets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Section(BaseModel):
    """A part of the settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GitSettings(Section):
    """Where the environments repo is and how it is read."""

    url: str = Field("", description="https, ssh, git@host:path, file:// or an absolute path")
    branch: str = "main"
    poll_interval: float = Field(10.0, gt=0, description="seconds between two polls")
    timeout: float = Field(60.0, gt=0, description="seconds one git operation may take")
    allow_schemes: tuple[str, ...] = ("https", "ssh", "file")
    max_blob_bytes: int = Field(1 << 20, gt=0, description="larger definition files are refused")
    max_package_bytes: int = Field(64 << 20, gt=0, description="limit of one in-repo package")


class BuilderSettings(Section):
    """How builds are made."""

    parallel: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    sandbox: Literal["auto", "require", "off"] = "auto"
    default_index: str = Field("", description="the public index; empty: uv's own default")
    maven_repository: str = Field("", description="empty: Maven Central")
    resolve_timeout: float = Field(120.0, gt=0)
    build_timeout: float = Field(900.0, gt=0)
    verify_timeout: float = Field(600.0, gt=0)
    memory_bytes: int = Field(4 << 30, gt=0, description="limit of one build process")
    file_bytes: int = Field(2 << 30, gt=0, description="largest file a build may write")
    cache_dir: Path | None = Field(None, description="default: <state_dir>/cache")


class LocalSettings(Section):
    """What instances with `local:` may run on this machine."""

    allow: tuple[str, ...] = Field(
        (), description="path globs of interpreters and commands that may be run; none by default"
    )


class HttpSettings(Section):
    """The daemon's HTTP server."""

    host: str = "127.0.0.1"
    port: int = Field(8085, ge=0, le=65535, description="0: any free port; -1 is not allowed")
    enabled: bool = True


class ActivationSettings(Section):
    """Limits of activations."""

    parallel: int = Field(8, ge=1, description="activations at once")
    retry_first: float = Field(15.0, gt=0, description="seconds before a first retry; doubles")
    retry_most: float = Field(1800.0, gt=0)


class GcSettings(Section):
    """Garbage collection of the share."""

    interval: float = Field(3600.0, gt=0)
    grace: float = Field(86400.0, ge=0, description="seconds kept beyond the last possible use")
    keep: int = Field(3, ge=1, description="newest builds kept per environment")


class Settings(BaseSettings):
    """All settings. Precedence: arguments, `GROUNDCREW_*`, `groundcrew.toml`, defaults."""

    model_config = SettingsConfigDict(
        env_prefix="GROUNDCREW_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    state_dir: Path = Path("/var/lib/groundcrew")
    share: Path = Path("/srv/groundcrew")
    secrets_dir: Path = Path("/etc/groundcrew/secrets")
    database: str = Field("", description="empty: SQLite in state_dir; or postgresql+psycopg://…")
    public_url: str = Field("", description="how people reach the daemon, for links in messages")
    prune_fraction: float = Field(0.5, gt=0, le=1)
    lease_ttl: float = Field(15.0, gt=1)
    log_format: Literal["text", "json"] = "text"
    git: GitSettings = GitSettings()
    builder: BuilderSettings = BuilderSettings()
    local: LocalSettings = LocalSettings()
    http: HttpSettings = HttpSettings()
    activation: ActivationSettings = ActivationSettings()
    gc: GcSettings = GcSettings()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database or f"sqlite:///{self.state_dir / 'groundcrew.db'}"

    @property
    def cache_dir(self) -> Path:
        """Where uv, downloads and unpacked wheels are cached, on local disk."""
        return self.builder.cache_dir or self.state_dir / "cache"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read `groundcrew.toml` (or `GROUNDCREW_CONFIG`) below the environment variables."""
        del dotenv_settings, file_secret_settings
        path = Path(os.environ.get("GROUNDCREW_CONFIG", "groundcrew.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)
