"""The kinds that are watched, and what is kept of their objects.

Objects are kept as compact JSON, not as trees of dicts: a tree takes about ten times the memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pydantic_core

from finetune_operator.api.base import GROUP, VERSION
from finetune_operator.plan.model.names import (
    LABEL_ATTEMPT,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_QUEUE,
    LABEL_STAGE,
    SELECTOR,
)

Body = Mapping[str, Any]
"""An object as the API server sends it."""

TOO_LARGE: Final = "tooLarge"
"""Stands in place of a spec that is not kept: its size in bytes."""
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
_METADATA: Final = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_LABELS: Final = (LABEL_MANAGED_BY, LABEL_JOB, LABEL_STAGE, LABEL_ATTEMPT, LABEL_QUEUE, INDEX_LABEL)
_JOB_SPEC: Final = ("suspend", "parallelism", "completions", "activeDeadlineSeconds")
_JOB_STATUS: Final = ("active", "ready", "terminating", "succeeded", "failed")
_POD_STATUS: Final = ("phase", "podIP", "reason", "message")
_POD_CONDITIONS: Final = frozenset({"PodScheduled", "DisruptionTarget"})
_CONDITION: Final = ("type", "status", "reason", "message")
_STATE: Final = ("exitCode", "reason", "message", "startedAt", "finishedAt")
_OF_ENDED_STATUS: Final = ("phase", "observedGeneration", "completionTime")
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


def trim_huge(job: Body, most: int) -> dict[str, Any]:
    """A FineTuneJob that is too large to be kept: without annotations, and if need be with its size as spec."""
    metadata = {key: value for key, value in job["metadata"].items() if key != "annotations"}
    small = {**job, "metadata": metadata}
    size = len(pydantic_core.to_json(small))
    return small if size <= most else small | {"spec": {TOO_LARGE: size}}


def trim_ended(body: Body) -> dict[str, Any]:
    """What is kept of a FineTuneJob that has ended: enough to see that somebody wants something of it."""
    metadata, policy = body["metadata"], body.get("spec", {}).get("runPolicy")
    return {
        "metadata": _pick(metadata, ("uid", "generation")),
        "spec": {"runPolicy": policy} if policy else {},
        "status": _pick(body["status"], _OF_ENDED_STATUS),
    }


def controller_of(body: Body) -> dict[str, Any]:
    """The owner reference of the object's controller; empty when it has none."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((dict(owner) for owner in owners if owner.get("controller")), {})


def _trim_metadata(body: Body, labels: Body) -> dict[str, Any]:
    return _pick(body["metadata"], _METADATA) | {"labels": _pick(labels, _LABELS)}


def _trim_conditions(status: Body) -> list[dict[str, Any]]:
    return [_pick(condition, _CONDITION) for condition in status.get("conditions") or ()]


def trim_batch_job(body: Body) -> dict[str, Any]:
    """A batch/v1 Job without its pod template.

    Of its labels those count that it was made with: its pods' template still has them, and cannot be changed.
    """
    spec, status = body.get("spec", {}), body.get("status", {})
    own, made_with = body["metadata"].get("labels") or {}, labels_of_pods(body)
    return {
        "metadata": _trim_metadata(body, {**own, **made_with}) | _pick(body["metadata"], ("generation",)),
        "spec": _pick(spec, _JOB_SPEC),
        "status": _pick(status, _JOB_STATUS) | {"conditions": _trim_conditions(status)},
    }


def labels_of_pods(job: Body) -> dict[str, str]:
    """The labels of a batch/v1 Job's pod template that are the operator's own."""
    labels = job.get("spec", {}).get("template", {}).get("metadata", {}).get("labels") or {}
    return _pick(labels, (LABEL_MANAGED_BY, LABEL_JOB, LABEL_STAGE, LABEL_ATTEMPT))


def trim_pod(body: Body) -> dict[str, Any]:
    """A pod's identity, its node and how it fares."""
    status = body.get("status", {})
    containers = {
        field: [_trim_container(container) for container in status[field]]
        for field in ("initContainerStatuses", "containerStatuses")
        if status.get(field)
    }
    conditions = [condition for condition in _trim_conditions(status) if condition["type"] in _POD_CONDITIONS]
    return {
        "metadata": _trim_metadata(body, body["metadata"].get("labels") or {}),
        "spec": _pick(body.get("spec", {}), ("nodeName",)),
        "status": _pick(status, _POD_STATUS) | {"conditions": conditions} | containers,
    }


def _trim_container(container: Body) -> dict[str, Any]:
    trimmed = {"name": container["name"], "state": _trim_state(container.get("state") or {})}
    return trimmed | ({"lastState": _trim_state(container["lastState"])} if container.get("lastState") else {})


def _trim_state(state: Body) -> dict[str, Any]:
    return {name: _pick(details or {}, _STATE) for name, details in state.items()}


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
