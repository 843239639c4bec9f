"""The definitions as teams write them (DESIGN §2): unknown keys and wrong types are refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gitsource.fields import (
    ApiUrl,
    ComponentName,
    Cron,
    Duration,
    EnvName,
    Glob,
    IndexUrl,
    Jar,
    Mode,
    ModuleName,
    Name,
    RepoPath,
    RequirementText,
    Sha256,
    Timezone,
)

API_VERSION = "groundcrew/v1"


class Model(BaseModel):
    """A part of a definition."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Metadata(Model):
    """What every definition has."""

    name: Name = Field(description="a DNS-1123 label, unique in the repo")


class IndexModel(Model):
    """A package index."""

    name: Name
    url: IndexUrl = Field(description="the address of its simple API, without credentials")
    packages: Annotated[list[Glob], Field(min_length=1)] = Field(
        description="name globs: these come from this index and from no other"
    )
    credentials: Name | None = Field(None, description="a secret's name, never a value")
    caBundle: RepoPath | None = Field(None, description="PEM file in the team's folder")  # noqa: N815


class FileModel(Model):
    """A jar or a file placed beside the packages; exactly one of `jar`, `url`."""

    jar: Jar | None = Field(None, description="group:artifact:version")
    url: IndexUrl | None = None
    sha256: Sha256
    path: RepoPath | None = Field(None, description="where it goes, such as bin/duckdb")
    mode: Mode = "0644"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jar is None) == (self.url is None):
            raise ValueError("write exactly one of jar and url")
        if self.url is not None and self.path is None:
            raise ValueError("a file from a url needs a path")
        return self


class ChecksModel(Model):
    """What verification proves beside the import of every module."""

    imports: list[ModuleName] = Field(default_factory=list)
    dags: list[RepoPath] = Field(default_factory=list)
    timeout: Duration = 300.0


class WaveModel(Model):
    """Instances that activate together."""

    instances: Annotated[list[Name], Field(min_length=1)]
    soak: Duration = Field(0.0, description="how long this wave must be active before the next")


class FragmentSpec(Model):
    """What a fragment may hold; an environment takes it in by `extends`."""

    requirements: list[RequirementText] = Field(default_factory=list)
    constraints: list[RepoPath] = Field(default_factory=list)
    indexes: list[IndexModel] = Field(default_factory=list)
    sourceBuilds: list[Name] = Field(default_factory=list)  # noqa: N815
    files: list[FileModel] = Field(default_factory=list)
    env: dict[EnvName, str] = Field(default_factory=dict)
    checks: ChecksModel = Field(default_factory=ChecksModel)


class EnvironmentSpec(FragmentSpec):
    """What a team asks for."""

    suspend: bool = False
    extends: list[Name] = Field(default_factory=list, description="fragments, in this order")
    rollout: list[WaveModel] = Field(default_factory=list)


class KubernetesModel(Model):
    """An Airflow from the official chart."""

    namespace: Name
    release: Name
    context: str | None = Field(None, description="kubeconfig context; in-cluster when absent")


Command = Annotated[list[str], Field(min_length=1, max_length=50)]


class ComponentModel(Model):
    """How one local component is restarted; commands are lists of words, run without a shell."""

    restart: Command
    status: Command | None = Field(None, description="exits 0 while the component is up")


class LocalModel(Model):
    """An Airflow on the daemon's machine."""

    python: str = Field(pattern="^/")
    airflowHome: str = Field(pattern="^/")  # noqa: N815
    components: dict[ComponentName, ComponentModel]


class ApiModel(Model):
    """Airflow's REST API."""

    url: ApiUrl
    credentials: Name | None = None


class DrainModel(Model):
    """How long running tasks may take to finish, and what then."""

    timeout: Duration = 900.0
    onTimeout: Literal["abort", "proceed"] = "abort"  # noqa: N815


class ProbeModel(Model):
    """How long the instance may take to be healthy."""

    timeout: Duration = 300.0


class WindowModel(Model):
    """When activations may start."""

    cron: Cron
    duration: Duration
    timezone: Timezone = "UTC"


class MaintenanceModel(Model):
    """How an instance is taken to another build."""

    drain: DrainModel = Field(default_factory=DrainModel)
    probe: ProbeModel = Field(default_factory=ProbeModel)
    window: WindowModel | None = None


class InstanceSpec(Model):
    """One Airflow deployment; exactly one of `kubernetes`, `local`."""

    team: Name
    suspend: bool = False
    kubernetes: KubernetesModel | None = None
    local: LocalModel | None = None
    api: ApiModel
    loadInto: Annotated[list[ComponentName], Field(min_length=1)] | None = None  # noqa: N815
    maintenance: MaintenanceModel = Field(default_factory=MaintenanceModel)

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.kubernetes is None) == (self.local is None):
            raise ValueError("write exactly one of kubernetes and local")
        return self


class EnvironmentModel(Model):
    """kind: Environment."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815
    kind: Literal["Environment"]
    metadata: Metadata
    spec: EnvironmentSpec


class InstanceModel(Model):
    """kind: Instance."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815
    kind: Literal["Instance"]
    metadata: Metadata
    spec: InstanceSpec


class FragmentModel(Model):
    """kind: Fragment, for `extends`."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815
    kind: Literal["Fragment"]
    metadata: Metadata
    spec: FragmentSpec


KINDS: dict[str, type[EnvironmentModel | InstanceModel | FragmentModel]] = {
    "Environment": EnvironmentModel,
    "Instance": InstanceModel,
    "Fragment": FragmentModel,
}
