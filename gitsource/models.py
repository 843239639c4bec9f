"""Models of the definitions that teams write: unknown keys and wrong types are rejected."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gitsource.fields import (
    AbsolutePath,
    ApiUrl,
    BuildConstraint,
    BuildVariable,
    ComponentName,
    Count,
    Cron,
    Duration,
    EnvName,
    FileTarget,
    Glob,
    IndexUrl,
    Jar,
    Mode,
    ModuleGlob,
    ModuleName,
    Name,
    PackageName,
    RepoPath,
    RequirementText,
    Sha256,
    Size,
    Timezone,
)

API_VERSION = "groundcrew/v1"

T = TypeVar("T")
Few = Annotated[list[T], Field(max_length=50)]
Components = Annotated[Few[ComponentName], Field(min_length=1)]
Some = Annotated[list[T], Field(max_length=200)]
Many = Annotated[list[T], Field(max_length=1000)]


class Model(BaseModel):
    """Part of a definition."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Metadata(Model):
    """Metadata of a definition."""

    name: Name = Field(description="name of the object: a DNS-1123 label, unique in the repo")


class IndexModel(Model):
    """Package index."""

    name: Name = Field(description="name of the index in logs and messages")
    url: IndexUrl = Field(description="URL of its simple API, without credentials")
    packages: Annotated[Some[Glob], Field(min_length=1)] = Field(
        description="globs of package names that come from this index and from no other"
    )
    credentials: Name | None = Field(
        None, description="name of the secret with the credentials, never a value"
    )
    caBundle: RepoPath | None = Field(  # noqa: N815
        None, description="PEM file with the index's certificate authority, in the team's folder"
    )


class FileModel(Model):
    """Jar or file placed beside the packages; exactly one of `jar`, `url`."""

    jar: Jar | None = Field(
        None, description="group:artifact:version, or group:artifact:version:classifier"
    )
    url: IndexUrl | None = Field(None, description="URL to download from, without credentials")
    sha256: Sha256 = Field(description="SHA-256 of the content")
    path: FileTarget | None = Field(
        None, description="path of the file within the build, such as bin/duckdb"
    )
    mode: Mode = Field("0644", description="permissions, in quotes")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jar is None) == (self.url is None):
            raise ValueError("write exactly one of jar and url")
        if self.url is not None and self.path is None:
            raise ValueError("a file from a url needs a path")
        return self


class ImportBudgetModel(Model):
    """Limits on the cost of importing the build; a build that exceeds them is refused.

    `files`, `opens` and `bytes` are the same on every machine; `time` is not.
    """

    files: Count | None = Field(
        None, description="limit on files of the build that its imports need"
    )
    opens: Count | None = Field(
        None,
        description="limit on files that are opened during the imports, including Python's own",
    )
    bytes: Size | None = Field(None, description="limit on the size of these files, such as 200Mi")
    time: Duration | None = Field(
        None, description="limit on the time that the imports take; it is longer on a busy machine"
    )


class ChecksModel(Model):
    """Checks of verification in addition to importing every module."""

    imports: Many[ModuleName] = Field(default_factory=list, description="modules that must import")
    exclude: Annotated[list[ModuleGlob], Field(max_length=100)] = Field(
        default_factory=list,
        description="globs of modules that verification leaves out, such as acme.legacy.*",
    )
    dags: Some[RepoPath] = Field(
        default_factory=list, description="DAG files in the team's folder that must parse"
    )
    timeout: Duration = Field(300.0, description="time limit of the imports")
    importBudget: ImportBudgetModel = Field(  # noqa: N815
        default_factory=ImportBudgetModel,
        description="limits on the cost of the imports; no limit if empty",
    )


class BuildModel(Model):
    """Inputs of building from source: for in-repo packages and `sourceBuilds`."""

    constraints: Few[BuildConstraint] = Field(
        default_factory=list,
        description="versions of build requirements: lines such as setuptools<80, or files of them",
    )
    env: Annotated[dict[BuildVariable, str], Field(max_length=100)] = Field(
        default_factory=dict,
        description="variables of compilers and build backends, by an allow-list of names",
    )


class WaveModel(Model):
    """Instances that activate together."""

    instances: Annotated[Some[Name], Field(min_length=1)] = Field(
        description="instances of this wave, all of the same team"
    )
    soak: Duration = Field(
        0.0, description="time for which this wave must be active before the next one starts"
    )


class FragmentSpec(Model):
    """Contents of a fragment, which an environment includes by `extends`."""

    requirements: Many[RequirementText] = Field(
        default_factory=list,
        description="PEP 508 requirements; `name @ ./packages/name` is an in-repo package, and "
        "`requirements.txt` a file in the team's folder (its name ends in .txt or .in)",
    )
    constraints: Few[RepoPath] = Field(
        default_factory=list,
        description="files in the team's folder, of lines such as numpy<2",
    )
    indexes: Few[IndexModel] = Field(
        default_factory=list, description="package indexes beside the public one"
    )
    sourceBuilds: Some[PackageName] = Field(  # noqa: N815
        default_factory=list, description="third-party packages that may be built from source"
    )
    build: BuildModel = Field(
        default_factory=BuildModel, description="what building from source is given"
    )
    files: Some[FileModel] = Field(default_factory=list, description="jars and programs")
    env: Annotated[dict[EnvName, str], Field(max_length=500)] = Field(
        default_factory=dict,
        description="environment variables of every process that loads the build",
    )
    checks: ChecksModel = Field(default_factory=ChecksModel, description="checks of verification")


class EnvironmentSpec(FragmentSpec):
    """Environment of a team."""

    suspend: bool = Field(False, description="whether nothing new is started for this environment")
    extends: Few[Name] = Field(
        default_factory=list, description="fragments to include, in this order"
    )
    rollout: Few[WaveModel] = Field(
        default_factory=list, description="waves of the rollout, one after the other"
    )


class KubernetesModel(Model):
    """Airflow from the official chart."""

    namespace: Name = Field(description="namespace of the Helm release")
    release: Name = Field(description="name of the Helm release")
    context: str | None = Field(
        None, description="kubeconfig context; if absent, the daemon's own cluster"
    )


Command = Annotated[list[str], Field(min_length=1, max_length=50)]


class ComponentModel(Model):
    """Commands of a local component: lists of words, run without a shell."""

    restart: Command = Field(
        description="command that restarts the component and ends when it is up"
    )
    status: Command | None = Field(
        None, description="command that exits with 0 while the component is up"
    )


class LocalModel(Model):
    """Airflow on the daemon's machine."""

    python: AbsolutePath = Field(description="interpreter that runs Airflow")
    airflowHome: AbsolutePath = Field(description="AIRFLOW_HOME of the instance")  # noqa: N815
    components: Annotated[dict[ComponentName, ComponentModel], Field(max_length=50)] = Field(
        description="components by name"
    )


class ApiModel(Model):
    """Airflow's REST API."""

    url: ApiUrl = Field(description="URL of the API server or webserver")
    credentials: Name | None = Field(
        None, description="name of the secret with the credentials, never a value"
    )


class DrainModel(Model):
    """Time for running tasks to finish, and what happens afterwards."""

    timeout: Duration = Field(900.0, description="longest wait for running tasks")
    onTimeout: Literal["abort", "proceed"] = Field(  # noqa: N815
        "abort",
        description="`abort` gives up and changes nothing; `proceed` continues while tasks "
        "still run",
    )


class ProbeModel(Model):
    """Time for the instance to become healthy."""

    timeout: Duration = Field(
        300.0,
        description="time limit for becoming healthy after the restart; then the instance is "
        "rolled back",
    )


class WindowModel(Model):
    """Times at which activations may start."""

    cron: Cron = Field(description="time at which the window opens, in quotes")
    duration: Duration = Field(description="time for which it stays open")
    timezone: Timezone = Field("UTC", description="time zone of the cron expression")


class MaintenanceModel(Model):
    """Settings for moving an instance to another build."""

    drain: DrainModel = Field(
        default_factory=DrainModel, description="wait for running tasks before the switch"
    )
    probe: ProbeModel = Field(
        default_factory=ProbeModel, description="health check after the switch"
    )
    window: WindowModel | None = Field(
        None, description="times at which activations may start; if absent, at any time"
    )


class DagsGitModel(Model):
    """DAGs that a container of the release's own pods fetches from git, as git-sync does."""

    container: Name = Field(
        description="name of the container; one from git-sync is found without it"
    )
    path: AbsolutePath | None = Field(
        None, description="DAG folder, if Airflow's configuration does not tell"
    )


class DagsModel(Model):
    """Location of the DAGs of a release whose pods do not show it; exactly one of these."""

    claim: Name | None = Field(
        None, description="persistent volume claim in the release's namespace"
    )
    subPath: RepoPath | None = Field(None, description="folder within the claim")  # noqa: N815
    path: AbsolutePath | None = Field(
        None,
        description="DAG folder at which the claim is mounted; if absent, the one of Airflow's "
        "configuration",
    )
    image: AbsolutePath | None = Field(None, description="folder in the Airflow image")
    git: DagsGitModel | None = Field(None, description="container that fetches the DAGs")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(one is not None for one in (self.claim, self.image, self.git)) != 1:
            raise ValueError("write exactly one of claim, image and git")
        if self.claim is None and (self.subPath is not None or self.path is not None):
            raise ValueError("subPath and path belong to claim")
        return self


class InstanceChecksModel(Model):
    """Parsing of a release's DAGs before the switch."""

    runAs: Literal["isolated", "release"] = Field(  # noqa: N815
        "isolated",
        description="`release` parses with the release's own variables, secrets and volumes, so "
        "that DAGs that read a variable or connection can be judged; `isolated` "
        "without them",
    )


class InstanceSpec(Model):
    """Airflow deployment; exactly one of `kubernetes`, `local`."""

    team: Name = Field(description="team whose environments the instance takes")
    suspend: bool = Field(False, description="whether nothing new is started on this instance")
    kubernetes: KubernetesModel | None = Field(None, description="release of the Helm chart")
    local: LocalModel | None = Field(None, description="Airflow on the daemon's machine")
    api: ApiModel = Field(description="access to Airflow's REST API")
    loadInto: Annotated[  # noqa: N815
        Components | None,
        BeforeValidator(
            lambda value: None if value == "auto" else value,
            json_schema_input_type=Components | Literal["auto"] | None,
        ),
    ] = Field(
        None,
        description="components that load the build, all of which are restarted at each "
        "activation; if absent or `auto`, all load it, and only those are restarted that load "
        "something that changed",
    )
    maintenance: MaintenanceModel = Field(
        default_factory=MaintenanceModel,
        description="settings for moving the instance to another build",
    )
    dags: DagsModel | None = Field(
        None, description="location of the release's DAGs; if absent, it is read from the pods"
    )
    checks: InstanceChecksModel = Field(
        default_factory=InstanceChecksModel,
        description="settings for parsing its DAGs before the switch",
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.kubernetes is None) == (self.local is None):
            raise ValueError("write exactly one of kubernetes and local")
        if self.local is not None and (self.dags is not None or self.checks.runAs == "release"):
            raise ValueError("dags and checks are for kubernetes: airflowHome says it for local")
        return self


class EnvironmentModel(Model):
    """Definition of kind Environment."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815
    kind: Literal["Environment"]
    metadata: Metadata
    spec: EnvironmentSpec


class InstanceModel(Model):
    """Definition of kind Instance."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815
    kind: Literal["Instance"]
    metadata: Metadata
    spec: InstanceSpec


class FragmentModel(Model):
    """Definition of kind Fragment, for `extends`."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815
    kind: Literal["Fragment"]
    metadata: Metadata
    spec: FragmentSpec


KINDS: dict[str, type[EnvironmentModel | InstanceModel | FragmentModel]] = {
    "Environment": EnvironmentModel,
    "Instance": InstanceModel,
    "Fragment": FragmentModel,
}
