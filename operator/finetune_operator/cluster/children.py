"""A job's Jobs and their pods, by name and owner: from the store, and live where the store may have lost something.

The store sees children through a watch by label. Before one is taken for lost, the API server is asked by name and
by owner: a label that somebody took away must not start a second gang.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import pydantic_core

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Phase
from finetune_operator.cluster.client import Client, NotFoundError
from finetune_operator.cluster.reported import Json
from finetune_operator.plan.model.names import LABEL_JOB, LABEL_MANAGED_BY, LABEL_STAGE, MANAGED_BY, stage_name
from finetune_operator.runtime.kinds import BATCH_JOBS, PODS, JobKey, controller_of, labels_of_pods
from finetune_operator.runtime.store import Record, Ref, Store, record_of
from finetune_trainer.contract import Stage

_OWNER_LABEL: Final = "batch.kubernetes.io/controller-uid"
"""By which the Job controller selects a Job's pods."""


@dataclass(frozen=True)
class Relabel:
    """A Job of ours that has lost labels by which it is watched."""

    name: str
    uid: str
    labels: dict[str, str]


@dataclass(frozen=True)
class FoundJob:
    """A stage's Job, as `trim_batch_job` leaves it."""

    body: Json
    relabel: Relabel | None = None


@dataclass(frozen=True)
class FoundPods:
    """Pods of a Job, as `trim_pod` leaves them."""

    bodies: tuple[Json, ...]
    complete: bool
    """Whether all that the store knows is here, and will be told of when it changes."""


@dataclass(frozen=True)
class Children:
    """Finds children. What is found live goes into the store."""

    store: Store
    client: Client
    _absent: dict[JobKey, set[str]] = field(default_factory=dict)
    """Jobs that the API server was asked for and does not have."""
    _swept: dict[JobKey, set[str]] = field(default_factory=dict)
    """Names of Jobs that are gone, and of which no pod was left."""

    async def job(self, key: JobKey, job: FineTuneJob, stage: Stage) -> FoundJob | None:
        """The Job of a stage, if it is there and ours."""
        name = stage_name(key.name, stage)
        known, uid = self.store.get(BATCH_JOBS, key.namespace, name), job.metadata.uid
        if known is not None:
            self._absent.get(key, set()).discard(name)
            self._swept.get(key, set()).discard(name)
            if known.owner != uid:
                return None
            if known.raw:
                return FoundJob(pydantic_core.from_json(known.raw))
        if name in self._absent.get(key, ()) or not (_is_under_way(job, stage) or (known and known.live)):
            return None
        return await self._live_job(key, uid, name, known)

    def pods(self, job_uid: str) -> FoundPods:
        """The pods of a Job that the store knows."""
        records = self.store.owned_by(job_uid, PODS)
        bodies = tuple(pydantic_core.from_json(record.raw) for record in records if record.raw)
        watched = all(body["metadata"]["labels"].get(LABEL_MANAGED_BY) == MANAGED_BY for body in bodies)
        return FoundPods(bodies, complete=watched and len(bodies) == len(records))

    async def live_pods(self, key: JobKey, job_uid: str) -> FoundPods:
        """The pods of a Job that the API server knows."""
        kind = replace(PODS, selector=f"{_OWNER_LABEL}={job_uid}")
        found: dict[Ref, Any] = {}
        version = 0
        async for page in self.client.pages(kind, key.namespace):
            version = page.version
            for body in page.items:
                if controller_of(body).get("uid") == job_uid:
                    record = record_of(PODS, body)
                    self.store.put(record)
                    found[record.ref] = PODS.trim(body)
        for record in self.store.owned_by(job_uid, PODS):
            if record.ref not in found and record.version <= version:
                self.store.remove(PODS, record.ref, record.uid, version)
        return FoundPods(tuple(found.values()), complete=True)

    async def strays(self, key: JobKey, job: FineTuneJob, stage: Stage) -> tuple[Json, ...]:
        """Pods that still run although their stage's Job is gone: it was deleted in the background, not by us.

        Asked for live, once for each Job that is gone: the store does not keep pods that are nobody's.
        """
        name = stage_name(key.name, stage)
        if not _is_under_way(job, stage) or name in self._swept.get(key, ()):
            return ()
        kind = replace(PODS, selector=f"{LABEL_JOB}={key.name},{LABEL_STAGE}={stage.value}")
        left: list[Json] = []
        async for page in self.client.pages(kind, key.namespace):
            left += [PODS.trim(body) for body in page.items if _runs_for(body, name)]
        if not left:
            self._swept.setdefault(key, set()).add(name)
        return tuple(left)

    def forget(self, key: JobKey) -> None:
        self._absent.pop(key, None)
        self._swept.pop(key, None)

    def clear(self) -> None:
        """Forgets everything: another process may have led, and made some."""
        self._absent.clear()
        self._swept.clear()

    async def _live_job(self, key: JobKey, uid: str, name: str, known: Record | None) -> FoundJob | None:
        try:
            body = await self.client.get(BATCH_JOBS.path(key.namespace, name))
        except NotFoundError:
            if known is not None:
                self.store.remove(BATCH_JOBS, known.ref, known.uid)
            self._absent.setdefault(key, set()).add(name)
            return None
        if controller_of(body).get("uid") != uid:
            return None
        self.store.put(record_of(BATCH_JOBS, body))
        return FoundJob(BATCH_JOBS.trim(body), lost_labels(body))


def lost_labels(job: Json) -> Relabel | None:
    """The labels that a Job was made with and has no more."""
    metadata = job["metadata"]
    labels = metadata.get("labels") or {}
    lost = {name: value for name, value in labels_of_pods(job).items() if labels.get(name) != value}
    return Relabel(metadata["name"], metadata["uid"], lost) if lost else None


def _runs_for(pod: Json, job: str) -> bool:
    """Whether a pod that a Job of this name made has not ended."""
    owner, phase = controller_of(pod), pod.get("status", {}).get("phase")
    return owner.get("kind") == "Job" and owner.get("name") == job and phase not in {"Succeeded", "Failed"}


def _is_under_way(job: FineTuneJob, stage: Stage) -> bool:
    """Whether the status says that the stage's Job is there, or was."""
    status = job.status
    return status is not None and status.stage is stage and status.phase is not Phase.PENDING
