"""Models of Kubernetes objects, with the fields that are read here and no others.

An API server may be anybody's, and what a webhook or an operator writes into an object may be
anything. A mirror keeps objects as their models leave them: a tenth of the size of a pod, with the
types and lengths that the readers rely on. Fields that are null count as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, FailFast, Field

from reconciler.cluster.connection import Json
from reconciler.documents import Document, check

ANNOTATION_LIMIT = 256  # characters; applied configurations are longer, and nothing reads them here
TEXT = 4096  # characters of a message that are kept


def _time(value: str) -> str:
    try:
        datetime.fromisoformat(value).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return value


def _short(annotations: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in annotations.items() if len(text) <= ANNOTATION_LIMIT}


T = TypeVar("T")
Name = Annotated[str, Field(max_length=1024)]
Time = Annotated[str, Field(max_length=64), AfterValidator(_time)]
Text = Annotated[str, AfterValidator(lambda text: text[:TEXT])]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Labels = Annotated[dict[Name, Name], Field(max_length=1000)]
Items = Annotated[
    list[T], FailFast(), BeforeValidator(lambda items: [] if items is None else items)
]
Annotations = Annotated[dict[str, str], AfterValidator(_short)]


class Owner(Document):
    """Reference to an object's owner."""

    kind: Name | None = None
    name: Name | None = None
    uid: Name | None = None
    controller: bool | None = None


class Metadata(Document):
    """Metadata of a pod template, which has no name."""

    namespace: Name | None = None
    uid: Name | None = None
    labels: Labels | None = None
    annotations: Annotations | None = None
    generation: Count | None = None
    ownerReferences: Items[Owner] = Field(default_factory=list)  # noqa: N815 - as Kubernetes writes them
    creationTimestamp: Time | None = None  # noqa: N815
    deletionTimestamp: Time | None = None  # noqa: N815
    deletionGracePeriodSeconds: Count | None = None  # noqa: N815


class ObjectMetadata(Metadata):
    """Metadata of an object."""

    name: Name


class SecurityContext(Document):
    """User and group of a container or pod."""

    runAsUser: Count | None = None  # noqa: N815
    runAsGroup: Count | None = None  # noqa: N815


class Container(Document):
    """Container in a specification."""

    name: Name
    image: Name | None = None
    securityContext: SecurityContext | None = None  # noqa: N815


class RollingUpdate(Document):
    """Part of a StatefulSet's pods that is updated; a Deployment's has other fields."""

    partition: Count | None = None


class UpdateStrategy(Document):
    """Strategy by which a StatefulSet replaces its pods."""

    type: Name | None = None
    rollingUpdate: RollingUpdate | None = None  # noqa: N815


class PodSpec(Document):
    """Specification of a pod."""

    containers: Items[Container] = Field(default_factory=list)
    initContainers: Items[Container] = Field(default_factory=list)  # noqa: N815
    securityContext: SecurityContext | None = None  # noqa: N815
    terminationGracePeriodSeconds: Count | None = None  # noqa: N815
    nodeName: Name | None = None  # noqa: N815


class Template(Document):
    """Pod template of a workload."""

    metadata: Metadata | None = None
    spec: PodSpec | None = None


class Spec(PodSpec):
    """Specification of a pod, or of a workload."""

    replicas: Count | None = None
    paused: bool | None = None
    updateStrategy: UpdateStrategy | None = None  # noqa: N815
    template: Template | None = None


class Waiting(Document):
    """Reason why a container has not started."""

    reason: Name | None = None
    message: Text | None = None


class Running(Document):
    """Start of a running container."""

    startedAt: Time | None = None  # noqa: N815


class Terminated(Document):
    """End of a container."""

    reason: Name | None = None
    exitCode: int | None = None  # noqa: N815
    message: Text | None = None


class State(Document):
    """State of a container."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Document):
    """Status of a container."""

    name: Name
    image: Name | None = None
    imageID: Name | None = None  # noqa: N815
    containerID: Name | None = None  # noqa: N815
    restartCount: Count | None = None  # noqa: N815
    ready: bool | None = None
    state: State | None = None
    lastState: State | None = None  # noqa: N815


class Condition(Document):
    """Condition of a pod, workload or Job."""

    type: Name
    status: Name | None = None
    reason: Name | None = None
    message: Text | None = None
    lastTransitionTime: Time | None = None  # noqa: N815


class Status(Document):
    """Status of a pod, workload or Job."""

    phase: Name | None = None
    reason: Name | None = None
    message: Text | None = None
    observedGeneration: Count | None = None  # noqa: N815
    conditions: Items[Condition] = Field(default_factory=list)
    containerStatuses: Items[ContainerStatus] = Field(default_factory=list)  # noqa: N815
    initContainerStatuses: Items[ContainerStatus] = Field(default_factory=list)  # noqa: N815


class KubernetesObject(Document):
    """Pod, workload or Job."""

    metadata: ObjectMetadata
    spec: Spec | None = None
    status: Status | None = None


class ListMetadata(Document):
    """Metadata of a page of a list."""

    proceed: Annotated[str, Field(max_length=64 << 10)] | None = Field(None, alias="continue")
    resourceVersion: Name | None = None  # noqa: N815


class Subject(Document):
    """Object that an event is about."""

    name: Name | None = None
    uid: Name | None = None


class Series(Document):
    """Repetition of an event."""

    lastObservedTime: Time | None = None  # noqa: N815


class Event(Document):
    """Event of the cluster."""

    metadata: ObjectMetadata
    involvedObject: Subject  # noqa: N815
    reason: Name | None = None
    message: Text | None = None
    lastTimestamp: Time | None = None  # noqa: N815
    eventTime: Time | None = None  # noqa: N815
    series: Series | None = None


def slim(document: object) -> Json:
    """Return an object with the fields of its model only. Raises Malformed."""
    model = check(KubernetesObject, document, _what(document))
    kept: Json = model.model_dump(exclude_unset=True, exclude_none=True)
    return {"spec": {}, "status": {}, **kept}


def whole(kind: str, document: Json) -> Json:
    """Return an object with all its fields, once those of its model are valid.

    Raises Malformed.
    """
    check(Event if kind == "events" else KubernetesObject, document, _what(document))
    return {"spec": {}, "status": {}, **{k: v for k, v in document.items() if v is not None}}


def _what(document: object) -> str:
    named = name_of(document)
    return f"object {named}" if named else "an object"


def name_of(document: object) -> str:
    """Return an object's name as far as it can be read, or ""."""
    return _text(_part(document, "metadata"), "name")


def version_of(document: object) -> str:
    """Return an object's resource version as far as it can be read, or ""."""
    return _text(_part(document, "metadata"), "resourceVersion")


def release_of(document: object) -> str:
    """Return the release in an object's labels as far as they can be read, or ""."""
    return _text(_part(_part(document, "metadata"), "labels"), "release")


def _part(document: object, key: str) -> object:
    return document.get(key) if isinstance(document, Mapping) else None


def _text(document: object, key: str) -> str:
    value = _part(document, key)
    return value[:1024] if isinstance(value, str) else ""
