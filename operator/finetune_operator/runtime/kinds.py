"""The kinds that are watched, and what is kept of their objects.

Objects are kept as compact JSON, not as trees of dicts: a tree takes about ten times the memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from finetune_operator.api.base import GROUP, VERSION
from finetune_operator.plan.model.names import SELECTOR

Body = Mapping[str, Any]
"""An object as the API server sends it."""

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_METADATA: Final = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels")
_POD_STATUS: Final = ("phase", "podIP", "reason", "message", "conditions")
_CONTAINER_STATUS: Final = ("name", "state")
_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_OBJECT_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_NAME: Final = 253


class BadNameError(ValueError):
    """No object can have this name, and a path made of it would be that of another request."""


class JobKey(NamedTuple):
    """A FineTuneJob: what the queue holds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind that the operator reads or writes."""

    group: str
    version: str
    plural: str
    trim: Callable[[Body], dict[str, Any]] = dict
    """What is kept of an object."""
    namespaced: bool = True
    selector: str | None = None
    """Label selector of the objects that concern the operator."""

    @property
    def root(self) -> str:
        """Path of the group and version in the API."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Path of an object, or of the collection; of all namespaces when there is none. Raises BadNameError."""
        within = f"/namespaces/{object_name(namespace)}" if namespace and self.namespaced else ""
        return f"{self.root}{within}/{self.plural}" + (f"/{object_name(name)}" if name is not None else "")


def object_name(name: str) -> str:
    """A name that may stand in a path: it has no character that would have to be escaped there, and is not `..`."""
    if len(name) > _LONGEST_NAME or not _OBJECT_NAME.fullmatch(name):
        raise BadNameError(f"{name[:_LONGEST_NAME]!r} is not a name that an object can have")
    return name


def _pick(source: Body, fields: tuple[str, ...]) -> dict[str, Any]:
    return {field: source[field] for field in fields if field in source}


def trim_own(body: Body) -> dict[str, Any]:
    """An object of ours: all of it but the bookkeeping of other programs."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return {**body, "metadata": metadata}


def _trim_metadata(body: Body) -> dict[str, Any]:
    metadata = body["metadata"]
    owners = [_pick(owner, ("uid", "controller")) for owner in metadata.get("ownerReferences", ())]
    return _pick(metadata, _METADATA) | {"ownerReferences": owners}


def trim_batch_job(body: Body) -> dict[str, Any]:
    """A batch/v1 Job without its pod template."""
    return {
        "metadata": _trim_metadata(body),
        "spec": _pick(body.get("spec", {}), ("suspend", "parallelism", "completions")),
        "status": body.get("status", {}),
    }


def trim_pod(body: Body) -> dict[str, Any]:
    """A pod's identity and how it fares."""
    status = body.get("status", {})
    containers = {
        field: [_pick(container, _CONTAINER_STATUS) for container in status[field]]
        for field in ("initContainerStatuses", "containerStatuses")
        if status.get(field)
    }
    return {"metadata": _trim_metadata(body), "status": _pick(status, _POD_STATUS) | containers}


FINETUNE_JOBS: Final = Kind(GROUP, VERSION, "finetunejobs", trim_own)
TEMPLATES: Final = Kind(GROUP, VERSION, "finetunetemplates", trim_own)
CLUSTER_TEMPLATES: Final = Kind(GROUP, VERSION, "clusterfinetunetemplates", trim_own, namespaced=False)
BATCH_JOBS: Final = Kind("batch", "v1", "jobs", trim_batch_job, selector=SELECTOR)
PODS: Final = Kind("", "v1", "pods", trim_pod, selector=SELECTOR)

WATCHED: Final = (CLUSTER_TEMPLATES, TEMPLATES, PODS, BATCH_JOBS, FINETUNE_JOBS)
"""In the order they are listed: what a job depends on comes first."""

CONFIG_MAPS: Final = Kind("", "v1", "configmaps")
SERVICES: Final = Kind("", "v1", "services")
CLAIMS: Final = Kind("", "v1", "persistentvolumeclaims")
SECRETS: Final = Kind("", "v1", "secrets")
EVENTS: Final = Kind("", "v1", "events")
