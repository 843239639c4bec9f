"""Operations of `/api/v1`, from which the routes and the OpenAPI document are generated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from reconciler.api import contract
from reconciler.api.tokens import Role

ROOT = "/api/v1"
LOG_OFFSET = "groundcrew-log-offset"  # header: the byte of a log at which a response begins


@dataclass(frozen=True, slots=True)
class Operation:
    """Operation on one path and method; `name` is the handler's name and the operationId.

    `answer` is a model, a list of one (`many`), or a media type. `path_types` maps a path's
    parameters to their types in `contract`. `status` is the status code of success.
    """

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    answer: type[BaseModel] | str
    many: bool = False
    query: type[BaseModel] = contract.NoQuery
    body: type[BaseModel] | None = None
    role: Role | None = Role.READ
    status: int = 200
    path_types: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()


NAMED = {"name": contract.Name}
KEYED = {"key": contract.Key}
TEXT, JSON, TOML = "text/plain", "application/json", "application/toml"

OPERATIONS = (
    Operation("GET", "/system", "system", "The server and who asks", contract.System),
    Operation(
        "GET",
        "/status",
        "status",
        "How everything stands",
        contract.Status,
        query=contract.StatusQuery,
    ),
    Operation(
        "GET",
        "/environments",
        "environments",
        "Environments, by name",
        contract.Environment,
        many=True,
        query=contract.ObjectQuery,
    ),
    Operation(
        "GET",
        "/environments/{name}",
        "environment",
        "One environment",
        contract.Environment,
        path_types=NAMED,
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/instances",
        "instances",
        "Instances, by name",
        contract.Instance,
        many=True,
        query=contract.ObjectQuery,
    ),
    Operation(
        "GET",
        "/instances/{name}",
        "instance",
        "One instance",
        contract.Instance,
        path_types=NAMED,
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/builds",
        "builds",
        "Builds, the newest first",
        contract.BuildDetail,
        many=True,
        query=contract.BuildsQuery,
    ),
    Operation(
        "GET",
        "/builds/{key}",
        "build",
        "One build, by its key or its id",
        contract.BuildDetail,
        path_types=KEYED,
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/builds/{key}/log",
        "log",
        "A build's log, as far as it is written",
        TEXT,
        query=contract.LogQuery,
        path_types=KEYED,
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/builds/{key}/lock",
        "lock",
        "A build's lock (PEP 751)",
        TOML,
        path_types=KEYED,
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/builds/{key}/sbom",
        "sbom",
        "A build's SBOM (CycloneDX)",
        JSON,
        path_types=KEYED,
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/builds/{key}/files",
        "files",
        "Files of a build's package, in RECORD's order",
        contract.Files,
        query=contract.FilesQuery,
        path_types=KEYED,
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/history",
        "history",
        "Events",
        contract.Event,
        many=True,
        query=contract.HistoryQuery,
    ),
    Operation(
        "GET",
        "/runtimes",
        "runtimes",
        "What is installed in the instances' bases",
        contract.Runtimes,
    ),
    Operation(
        "GET",
        "/requests",
        "requests",
        "Requests of operators that wait to be carried out",
        contract.Request,
        many=True,
    ),
    Operation(
        "POST",
        "/requests",
        "ask",
        "Ask the daemon to do something",
        contract.Request,
        body=contract.Ask,
        role=Role.OPERATE,
        status=202,
        refusals=(404, 409),
    ),
    Operation(
        "GET",
        "/openapi.json",
        "openapi",
        "This document",
        JSON,
        role=None,
    ),
)
