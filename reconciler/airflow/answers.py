"""Models of the answers of Airflow's REST API, of which only these fields are used.

An Airflow belongs to a team, so its answers may have any size and shape. Texts are cut or refused
at a length that no Airflow reaches.
"""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, AliasChoices, Field

from reconciler.documents import Document, Rows

TEXT = 4096  # characters of an error that are kept: its end says what is wrong

Name = Annotated[str, Field(max_length=4096)]
Time = Annotated[str, Field(max_length=64)]
Text = Annotated[str, AfterValidator(lambda text: text[-TEXT:])]
Count = Annotated[int, Field(ge=0)]

R = TypeVar("R")


class Page(Document, Generic[R]):
    """Page of a listing; a subclass says under which name Airflow sends the rows."""

    rows: Rows[R]
    total: Count = Field(0, alias="total_entries")


class PoolRow(Document):
    """Pool of task slots; -1 slots mean no limit."""

    name: Name
    slots: int


class Pools(Page[PoolRow]):
    """Page of pools."""

    rows: Rows[PoolRow] = Field(alias="pools")


class ImportErrorRow(Document):
    """File that cannot be parsed; only 3.x has bundles."""

    filename: Name | None = None
    bundle: Name | None = Field(None, alias="bundle_name")
    stack_trace: Text | None = None
    timestamp: Time | None = None


class ImportErrors(Page[ImportErrorRow]):
    """Page of files that cannot be parsed."""

    rows: Rows[ImportErrorRow] = Field(alias="import_errors")


class DagRow(Document):
    """DAG; the path within its bundle is sent by 3.x only."""

    dag_id: Name
    fileloc: Name | None = None
    relative_fileloc: Name | None = None
    bundle: Name | None = Field(None, alias="bundle_name")
    last_parsed_time: Time | None = None


class Dags(Page[DagRow]):
    """Page of DAGs."""

    rows: Rows[DagRow] = Field(alias="dags")


class PluginRow(Document):
    """Plugin that the API server has loaded; its source begins with `distribution==version`."""

    source: Name | None = None


class Plugins(Page[PluginRow]):
    """Page of plugins."""

    rows: Rows[PluginRow] = Field(alias="plugins")


class ProviderRow(Document):
    """Provider package that the API server knows."""

    package_name: Name
    version: Name = ""


class Providers(Page[ProviderRow]):
    """Page of provider packages."""

    rows: Rows[ProviderRow] = Field(alias="providers")


class TaskCount(Document):
    """Number of task instances that match; the rows themselves are not used."""

    total: Count = Field(alias="total_entries")


class HealthSection(Document):
    """Status of a component, and its latest heartbeat if it has one."""

    status: Name | None = None
    heartbeat: Time | None = Field(
        None,
        validation_alias=AliasChoices(
            "latest_scheduler_heartbeat",
            "latest_triggerer_heartbeat",
            "latest_dag_processor_heartbeat",
        ),
    )


class Health(Document):
    """Health page; a section is missing or null where Airflow has no such component."""

    metadatabase: HealthSection | None = None
    scheduler: HealthSection | None = None
    triggerer: HealthSection | None = None
    dag_processor: HealthSection | None = None


class Session(Document):
    """Answer to a login with username and password."""

    access_token: Annotated[str, Field(pattern=r"^[!-~]+$", max_length=16 << 10)]
