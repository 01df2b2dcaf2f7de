"""Carries out what the planner decided. Every answer goes into the store, so that the next look is not a stale one.

Nothing is taken over: a child is created, and one that is there already must be ours.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

import structlog

from finetune_operator.api.base import API_VERSION
from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus
from finetune_operator.cluster.children import Relabel, lost_labels
from finetune_operator.cluster.client import Client, ConflictError, NotFoundError, RefusedError
from finetune_operator.cluster.jobs import AT_ONCE_SECONDS
from finetune_operator.cluster.reported import Json
from finetune_operator.cluster.resolved import ResolvedSpecs
from finetune_operator.plan.model.names import LABEL_JOB_UID, LABEL_QUEUE
from finetune_operator.plan.model.plan import (
    Action,
    Create,
    DeleteJob,
    DeletePods,
    EndJob,
    Manifest,
    NameTaken,
    QueueJob,
)
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import (
    BATCH_JOBS,
    CLAIMS,
    CONFIG_MAPS,
    FINETUNE_JOBS,
    PODS,
    SERVICES,
    JobKey,
    Kind,
    controller_of,
)
from finetune_operator.runtime.store import Record, Ref, Store, record_of
from finetune_operator.runtime.workers import TransientError

_log = structlog.get_logger(__name__)
_KINDS: Final = {
    ("v1", "ConfigMap"): CONFIG_MAPS,
    ("v1", "Service"): SERVICES,
    ("v1", "PersistentVolumeClaim"): CLAIMS,
    ("batch/v1", "Job"): BATCH_JOBS,
}
_UNDECLARED: Final = re.compile(r"\.(status\.\S+): field not declared in schema")
_INDEX: Final = re.compile(r"\[[^\]]*\]")
_AT_ONCE: Final = 16


class StaleError(TransientError):
    """The store was behind the cluster; it has been brought up to date, and the job is looked at again."""


class NameTakenError(Exception):
    """An object that is not ours, or that is going, has the name that a child needs."""

    def __init__(self, taken: NameTaken) -> None:
        super().__init__(f"{taken.kind} {taken.name} belongs to {taken.owner}")
        self.taken = taken


@dataclass(frozen=True)
class Applier:
    """Writes to the cluster. A refusal is a RefusedError, for the planner to word; the rest comes back by itself."""

    client: Client
    store: Store
    inbox: Inbox
    resolved: ResolvedSpecs

    async def carry_out(self, key: JobKey, uid: str, action: Action) -> None:
        """One action on a child of the job with this uid. Raises NameTakenError, RefusedError, TransientError."""
        match action:
            case Create():
                await self._create(key, uid, action.manifest)
            case QueueJob():
                await self._patch_job(
                    key, action.job, action.uid, {"metadata": {"labels": {LABEL_QUEUE: action.queue}}}
                )
            case EndJob():
                await self._end_job(key, action)
            case DeleteJob():
                await self._delete(BATCH_JOBS, Ref(key.namespace, action.job), action.uid, "Foreground")
            case DeletePods():
                await self._restart_pods(key, action)
            case _:
                assert_never(action)

    async def relabel(self, key: JobKey, job: Relabel) -> None:
        """Gives a Job the labels back by which it is watched."""
        await self._patch_job(key, job.name, job.uid, {"metadata": {"labels": job.labels}})

    async def write_status(self, key: JobKey, job: FineTuneJob, status: JobStatus) -> None:
        """Replaces the status, if the job is still as it was when the status was decided. Raises StaleError."""
        metadata = {"name": key.name, "namespace": key.namespace, "uid": job.metadata.uid}
        body = {
            "apiVersion": API_VERSION,
            "kind": job.kind,
            "metadata": metadata | {"resourceVersion": job.metadata.resource_version},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        await self._written(key, job.metadata.uid, self._apply_status(key, body))

    async def patch_status(self, key: JobKey, uid: str, version: int, changes: Mapping[str, Any]) -> None:
        """Changes some fields of the status of a job that this operator cannot read as a whole. Raises StaleError."""
        body = {"metadata": {"uid": uid, "resourceVersion": str(version)}, "status": changes}
        await self._written(key, uid, self.client.merge(f"{FINETUNE_JOBS.path(*key)}/status", body))

    async def _apply_status(self, key: JobKey, body: Json) -> Json:
        """Where an older CRD lacks a field, server-side apply is refused as a whole; then it goes without that field.

        Not by another kind of write: what that had set, no later apply would ever remove.
        """
        path = f"{FINETUNE_JOBS.path(*key)}/status"
        try:
            answer: Json = await self.client.apply(path, body)
        except RefusedError as error:
            undeclared = _UNDECLARED.findall(error.message)
            if not undeclared:
                raise
            for field in undeclared:
                body = _without(body, _INDEX.sub("", field).split("."))
            answer = await self.client.apply(path, body)
        return answer

    async def _written(self, key: JobKey, uid: str, writing: Any) -> None:
        try:
            self.inbox.seen(record_of(FINETUNE_JOBS, await writing))
        except ConflictError as error:
            self.inbox.seen(record_of(FINETUNE_JOBS, await self.client.get(FINETUNE_JOBS.path(*key))))
            raise StaleError(f"the job had changed: {error.message}") from error
        except NotFoundError as error:
            self.inbox.gone(FINETUNE_JOBS, Ref(*key), uid)
            raise StaleError("the job is gone") from error

    async def _create(self, key: JobKey, uid: str, manifest: Manifest) -> None:
        kind = _KINDS[manifest["apiVersion"], manifest["kind"]]
        try:
            answer = await self.client.create(kind.path(key.namespace), manifest, strict=True)
        except ConflictError as error:
            answer = await self._existing(kind, key, manifest, error)
            if _is_going(answer) or not _is_ours(answer, uid, manifest):
                raise NameTakenError(_taken(key, uid, manifest, answer)) from error
            if kind is BATCH_JOBS:
                await self._find(key, answer)
        if kind is BATCH_JOBS:
            self.inbox.seen(record_of(BATCH_JOBS, answer))
        elif kind is CONFIG_MAPS:
            self.resolved.created(key, uid, answer)

    async def _existing(self, kind: Kind, key: JobKey, manifest: Manifest, error: ConflictError) -> Json:
        try:
            found: Json = await self.client.get(kind.path(key.namespace, manifest["metadata"]["name"]))
        except NotFoundError:  # it went just now, or it was something else that conflicted (a quota being counted)
            raise StaleError(str(error)) from error
        return found

    async def _find(self, key: JobKey, answer: Json) -> None:
        """A Job of ours that the store has not heard of: of a write whose answer was lost, or without its labels."""
        self.inbox.seen(record_of(BATCH_JOBS, answer))
        if lost := lost_labels(answer):
            await self.relabel(key, lost)
        raise StaleError(f"the Job {answer['metadata']['name']} is there already")

    async def _end_job(self, key: JobKey, action: EndJob) -> None:
        """What has ended by itself, or is gone, needs no end."""
        try:
            await self._patch_job(key, action.job, action.uid, {"spec": {"activeDeadlineSeconds": AT_ONCE_SECONDS}})
        except StaleError:
            return

    async def _patch_job(self, key: JobKey, name: str, uid: str, patch: dict[str, Any]) -> None:
        """Patches the Job with this uid, not another that has its name by now."""
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), "uid": uid}}
        try:
            answer = await self.client.merge(BATCH_JOBS.path(key.namespace, name), guarded)
        except (NotFoundError, ConflictError) as error:
            await self._look_again(BATCH_JOBS, Ref(key.namespace, name), uid)
            raise StaleError(f"the Job {name} is gone or is another: {error.message}") from error
        self.inbox.seen(record_of(BATCH_JOBS, answer))

    async def _restart_pods(self, key: JobKey, action: DeletePods) -> None:
        """Without the right to delete pods the whole Job is deleted: it queues again, but the gang restarts."""
        try:
            await self._delete_pods(key, action.pods)
        except RefusedError as error:
            job = self.store.get(BATCH_JOBS, key.namespace, action.job)
            if job is None:
                raise
            advice = "grant `delete` on pods to keep a gang's quota over restarts (chart: kueue.enabled=true)"
            _log.warning("quota_not_kept", job=action.job, namespace=key.namespace, error=str(error), advice=advice)
            await self._delete(BATCH_JOBS, job.ref, job.uid, "Foreground")

    async def _delete_pods(self, key: JobKey, names: tuple[str, ...]) -> None:
        known = [self.store.get(PODS, key.namespace, name) for name in names]
        limit = asyncio.Semaphore(_AT_ONCE)
        deletions = (self._delete_pod(record, limit) for record in known if record is not None)
        for error in await asyncio.gather(*deletions, return_exceptions=True):
            if error is not None:
                raise error

    async def _delete_pod(self, record: Record, limit: asyncio.Semaphore) -> None:
        async with limit:
            await self._delete(PODS, record.ref, record.uid, "Background")

    async def _delete(self, kind: Kind, ref: Ref, uid: str, propagation: str) -> None:
        """What is deleted stays, marked as such, until its time to checkpoint is over (a Job: that of its pods)."""
        try:
            answer = await self.client.delete(kind.path(*ref), uid, propagation)
        except (NotFoundError, ConflictError):
            await self._look_again(kind, ref, uid)
            return
        if answer.get("kind") in {"Job", "Pod"}:
            self.inbox.seen(record_of(kind, answer))

    async def _look_again(self, kind: Kind, ref: Ref, uid: str) -> None:
        """Brings the store up to date with an object that is not what the store says."""
        try:
            record = record_of(kind, await self.client.get(kind.path(*ref)))
        except NotFoundError:
            self.inbox.gone(kind, ref, uid)
            return
        if record.uid != uid:
            self.inbox.gone(kind, ref, uid)
        self.inbox.seen(record)


def _without(value: Any, path: list[str]) -> Any:
    """The value without the field at this path, in a list that of each item."""
    if isinstance(value, list):
        return [_without(item, path) for item in value]
    name, *below = path
    if not isinstance(value, dict) or name not in value:
        return value
    if below:
        return {**value, name: _without(value[name], below)}
    return {other: kept for other, kept in value.items() if other != name}


def _is_going(found: Json) -> bool:
    return "deletionTimestamp" in found["metadata"]


def _is_ours(found: Json, uid: str, manifest: Manifest) -> bool:
    """By its controller; a claim that outlives its job has none, and tells by a label for which job it was made."""
    if manifest["metadata"].get("ownerReferences"):
        return bool(controller_of(found).get("uid") == uid)
    return bool((found["metadata"].get("labels") or {}).get(LABEL_JOB_UID) == uid)


def _taken(key: JobKey, uid: str, manifest: Manifest, found: Json) -> NameTaken:
    owner = controller_of(found)
    words = f"{owner['kind']} {owner['name']}, uid {owner['uid']}" if owner else "nobody"
    of_earlier = owner.get("kind") == "FineTuneJob" and owner["name"] == key.name and owner["uid"] != uid
    return NameTaken(manifest["kind"], manifest["metadata"]["name"], words, is_going=_is_going(found) or of_earlier)
