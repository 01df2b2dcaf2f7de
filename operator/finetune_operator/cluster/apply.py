"""Carries out what the planner decided. Every answer goes into the store, so that the next look is not a stale one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, assert_never

from finetune_operator.api.base import API_VERSION
from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus
from finetune_operator.cluster.client import Client, ConflictError, NotFoundError
from finetune_operator.cluster.resolved import ResolvedSpecs
from finetune_operator.plan.model.names import LABEL_ATTEMPT
from finetune_operator.plan.model.plan import Action, Apply, DeleteJob, LabelAttempt, Manifest, SetSuspend
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import (
    BATCH_JOBS,
    CLAIMS,
    CONFIG_MAPS,
    FINETUNE_JOBS,
    PODS,
    SERVICES,
    JobKey,
)
from finetune_operator.runtime.store import Record, Ref, Store, record_of
from finetune_operator.runtime.workers import TransientError

_KINDS: Final = {
    ("v1", "ConfigMap"): CONFIG_MAPS,
    ("v1", "Service"): SERVICES,
    ("v1", "PersistentVolumeClaim"): CLAIMS,
    ("batch/v1", "Job"): BATCH_JOBS,
}


class StaleError(TransientError):
    """The store was behind the cluster; it has been brought up to date, and the job is looked at again."""


@dataclass(frozen=True)
class Applier:
    """Writes to the cluster. A refusal is a RefusedError, for the planner to word; the rest comes back by itself."""

    client: Client
    store: Store
    inbox: Inbox
    resolved: ResolvedSpecs

    async def carry_out(self, key: JobKey, uid: str, action: Action) -> None:
        """One action on a child of the job with this uid."""
        match action:
            case Apply():
                await self._apply(key, uid, action.manifest)
            case SetSuspend():
                await self._patch_job(key, action.job, {"spec": {"suspend": action.suspend}})
            case LabelAttempt():
                for pod in action.pods:
                    await self._charge(key, pod, action.attempt)
            case DeleteJob():
                await self._delete_job(key, action.job)
            case _:
                assert_never(action)

    async def write_status(self, key: JobKey, job: FineTuneJob, status: JobStatus) -> None:
        """Replaces the status, if the job is still as it was when the status was decided."""
        path = FINETUNE_JOBS.path(*key)
        metadata = {"name": key.name, "namespace": key.namespace, "uid": job.metadata.uid}
        body = {
            "apiVersion": API_VERSION,
            "kind": job.kind,
            "metadata": metadata | {"resourceVersion": job.metadata.resource_version},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            self.inbox.seen(record_of(FINETUNE_JOBS, await self.client.apply(f"{path}/status", body)))
        except ConflictError as error:
            self.inbox.seen(record_of(FINETUNE_JOBS, await self.client.get(path)))
            raise StaleError(f"the job had changed: {error.message}") from error
        except NotFoundError:
            self.inbox.gone(FINETUNE_JOBS, Ref(*key), job.metadata.uid)

    async def _apply(self, key: JobKey, uid: str, manifest: Manifest) -> None:
        kind = _KINDS[manifest["apiVersion"], manifest["kind"]]
        answer = await self.client.apply(kind.path(key.namespace, manifest["metadata"]["name"]), manifest)
        if kind is BATCH_JOBS:
            self.inbox.seen(record_of(BATCH_JOBS, answer))
        elif kind is CONFIG_MAPS:
            self.resolved.applied(key, uid, answer)

    async def _patch_job(self, key: JobKey, name: str, patch: dict[str, Any]) -> None:
        record = self.store.get(BATCH_JOBS, key.namespace, name)
        if record is None:
            raise StaleError(f"the Job {name} is gone")
        await self._patch(record, patch)

    async def _charge(self, key: JobKey, name: str, attempt: int) -> None:
        record = self.store.get(PODS, key.namespace, name)
        if record is not None:
            await self._patch(record, {"metadata": {"labels": {LABEL_ATTEMPT: str(attempt)}}})

    async def _patch(self, record: Record, patch: dict[str, Any]) -> None:
        """Patches the very object that the store knows, not another that has its name by now."""
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), "uid": record.uid}}
        try:
            answer = await self.client.merge(record.kind.path(*record.ref), guarded)
        except (NotFoundError, ConflictError) as error:
            self._forget(record)
            raise StaleError(
                f"{record.kind.plural} {record.ref.name} is gone or is another: {error.message}"
            ) from error
        self.inbox.seen(record_of(record.kind, answer))

    async def _delete_job(self, key: JobKey, name: str) -> None:
        """Foreground: the Job stays, marked as deleted, until its pods have had their time to checkpoint."""
        record = self.store.get(BATCH_JOBS, key.namespace, name)
        if record is None:
            return
        try:
            answer = await self.client.delete(record.kind.path(*record.ref), record.uid, "Foreground")
        except (NotFoundError, ConflictError):
            self._forget(record)
            return
        if answer.get("kind") == "Job":
            self.inbox.seen(record_of(BATCH_JOBS, answer))

    def _forget(self, record: Record) -> None:
        self.inbox.gone(record.kind, record.ref, record.uid)
