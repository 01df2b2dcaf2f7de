"""What the operator knows of the cluster: the newest state of every watched object, as compact JSON."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import pydantic_core

from finetune_operator.api.status import Phase
from finetune_operator.runtime.kinds import (
    BATCH_JOBS,
    FINETUNE_JOBS,
    PODS,
    TEMPLATES,
    Body,
    JobKey,
    Kind,
    controller_of,
    trim_ended,
    trim_huge,
)

_REMEMBERED_DELETIONS: Final = 8192
_ENDED: Final = frozenset(phase.value for phase in Phase if phase.is_terminal)
_CHILDREN: Final = (BATCH_JOBS, PODS)
LARGEST_JOB: Final = 320 * 1024
"""Bytes of JSON that are kept of a FineTuneJob: what a tenant writes must not fill the operator's memory."""


class Ref(NamedTuple):
    """An object of a kind. The namespace is empty for a kind that has none."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """One object: where it stands in time, what it is indexed by, and its JSON."""

    kind: Kind
    ref: Ref
    uid: str
    version: int
    """resourceVersion: within a cluster it grows, so that an older state is told from a newer."""
    raw: bytes
    """Compact JSON. A job that has ended keeps a small projection (see `trim_ended`), and its Jobs and pods nothing,
    as do those that are nobody's: whoever wants to know more of them asks the API server."""
    owner: str = ""
    """uid of the controller of a Job or pod."""
    live: bool = False
    """Whether a Job still runs pods or may: it is neither complete nor failed nor being deleted."""
    over: bool = False
    """Whether a pod has ended, which the next stage may wait for."""
    phase: str = ""
    """Phase of a FineTuneJob."""
    behind: bool = False
    """Whether the spec of a FineTuneJob was changed after its status was last written."""
    is_new: bool = False
    """Whether nobody has written a FineTuneJob's status yet."""
    template: str | None = None
    """Name of the template that a FineTuneJob waits to be started with."""

    @property
    def ended(self) -> bool:
        return self.phase in _ENDED


def record_of(kind: Kind, body: Body) -> Record:
    """Takes what is needed out of an object as the API server sent it."""
    metadata, status = body["metadata"], body.get("status") or {}
    record = Record(
        kind=kind,
        ref=Ref(metadata.get("namespace") or "", metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        raw=b"",
    )
    if kind is FINETUNE_JOBS:
        phase = status.get("phase") or Phase.PENDING.value
        observed = status.get("observedGeneration")
        record = replace(
            record,
            phase=phase,
            is_new=observed is None,
            behind=observed is not None and observed != metadata.get("generation"),
            template=None if phase in _ENDED or status.get("startTime") else body["spec"]["template"]["name"],
        )
    elif kind in _CHILDREN:
        live = kind is BATCH_JOBS and not ("deletionTimestamp" in metadata or _is_settled(status))
        over = kind is PODS and status.get("phase") in _ENDED
        record = replace(record, owner=controller_of(body).get("uid", ""), live=live, over=over)
    trimmed = trim_ended(body) if record.ended else kind.trim(body)
    raw = pydantic_core.to_json(trimmed)
    if len(raw) > LARGEST_JOB and kind is FINETUNE_JOBS:
        raw = pydantic_core.to_json(trim_huge(trimmed, LARGEST_JOB))
    return replace(record, raw=raw)


def _is_settled(status: Body) -> bool:
    conditions = status.get("conditions") or ()
    return any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in conditions)


class Store:
    """The newest record of every object, with the indexes that turn an object into the jobs it concerns.

    A Job belongs to the FineTuneJob, and a pod to the Job, whose uid its controller has; labels say nothing.
    Not safe for threads: it belongs to the operator's event loop.
    """

    def __init__(self) -> None:
        self._records: dict[Kind, dict[Ref, Record]] = defaultdict(dict)
        self._by_uid: dict[str, tuple[Kind, Ref]] = {}
        """FineTuneJobs and Jobs: what children have as controller."""
        self._owned: dict[str, dict[tuple[Kind, Ref], None]] = {}
        """Children by the uid of their controller, known or not, in the order in which they came."""
        self._waiting: dict[str, set[JobKey]] = {}
        self._phases: Counter[str] = Counter()
        self._deleted: OrderedDict[str, float] = OrderedDict()
        """Version up to which an object is gone, by uid."""

    def put(self, record: Record) -> tuple[JobKey, ...]:
        """Keeps a record if it is news, and says which jobs it concerns. A deleted object stays deleted."""
        known = self._records[record.kind].get(record.ref)
        if record.kind in _CHILDREN and self._nobody_looks_at(record, known):
            record = replace(record, raw=b"")
        if not self.is_newer(record.kind, record.ref, record.uid, record.version):
            if known is not None and known == replace(record, raw=b""):
                self._records[record.kind][record.ref] = record
            return ()
        self._drop(known)
        self._records[record.kind][record.ref] = record
        self._index(record)
        return self._concerned(record)

    def remove(self, kind: Kind, ref: Ref, uid: str, version: int | None = None) -> tuple[JobKey, ...]:
        """Forgets an object, and says which jobs that concerns.

        With a version only what is not newer: a watch by label tells of an object whose label was taken away
        as of one that was deleted.
        """
        self._deleted[uid] = max(math.inf if version is None else version, self._deleted.pop(uid, 0))
        if len(self._deleted) > _REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        record = self._records[kind].get(ref)
        if record is None or record.uid != uid or record.version > self._deleted[uid]:
            return ()
        concerned = self._concerned(record)
        self._drop(record)
        return concerned

    def is_newer(self, kind: Kind, ref: Ref, uid: str, version: int) -> bool:
        """Whether this state of an object is one that the store does not know yet."""
        if version <= self._deleted.get(uid, -1):
            return False
        known = self._records[kind].get(ref)
        return known is None or version > known.version

    def missing_from(self, kind: Kind, namespace: str | None, seen: Mapping[Ref, str], until: int) -> list[Record]:
        """The records that a complete list (ref to uid, taken at version `until`) does not hold."""
        return [
            record
            for ref, record in self._records[kind].items()
            if record.version <= until and seen.get(ref) != record.uid and namespace in (None, ref.namespace)
        ]

    def shed_strangers(self) -> None:
        """Keeps of Jobs and pods that are nobody's no more than that they are there; for when everything is known."""
        strangers = [record for kind in _CHILDREN for record in self._records[kind].values() if record.raw]
        for record in strangers:
            if self._family(record) is None:
                self._shed(record)

    def get(self, kind: Kind, namespace: str, name: str) -> Record | None:
        return self._records[kind].get(Ref(namespace, name))

    def job(self, key: JobKey) -> Record | None:
        return self._records[FINETUNE_JOBS].get(Ref(*key))

    def owned_by(self, uid: str, kind: Kind) -> list[Record]:
        """The records of a kind whose controller has this uid."""
        return [self._records[kind][ref] for found, ref in self._owned.get(uid, ()) if found is kind]

    def children(self, key: JobKey, kind: Kind) -> list[dict[str, Any]]:
        """The job's Jobs, or the pods of these, parsed."""
        job = self.job(key)
        records = self.owned_by(job.uid, BATCH_JOBS) if job else []
        if kind is PODS:
            records = [pod for record in records for pod in self.owned_by(record.uid, PODS)]
        return [pydantic_core.from_json(record.raw) for record in records if record.raw]

    def open_jobs(self) -> Iterator[JobKey]:
        """Every job at which something may be to do."""
        return (JobKey(*ref) for ref, job in self._records[FINETUNE_JOBS].items() if not self._is_quiet(job))

    def is_quiet(self, key: JobKey) -> bool:
        """Whether nothing is to do at a job: it has ended with all of its Jobs, and its spec has not changed since."""
        job = self.job(key)
        return job is None or self._is_quiet(job)

    def is_new(self, key: JobKey) -> bool:
        """Whether a job has neither a status nor a Job yet."""
        job = self.job(key)
        return job is not None and job.is_new and job.uid not in self._owned

    def jobs_with_children(self) -> list[JobKey]:
        """Every job that has not ended and has Jobs."""
        owners = (found for uid in self._owned if (found := self._by_uid.get(uid)) and found[0] is FINETUNE_JOBS)
        return [JobKey(*ref) for kind, ref in owners if not self._records[kind][ref].ended]

    def phases(self) -> Mapping[str, int]:
        """How many FineTuneJobs are in which phase."""
        return self._phases

    def count(self, kind: Kind) -> int:
        return len(self._records[kind])

    def _is_quiet(self, job: Record) -> bool:
        return job.ended and not job.behind and not any(one.live for one in self.owned_by(job.uid, BATCH_JOBS))

    def _family(self, record: Record) -> Record | None:
        """The FineTuneJob that a Job or pod belongs to, if it is one that is known."""
        found = self._by_uid.get(record.owner)
        owner = self._records[found[0]].get(found[1]) if found else None
        if record.kind is PODS and owner is not None:
            return self._family(owner) if owner.kind is BATCH_JOBS else None
        return owner if owner is not None and owner.kind is FINETUNE_JOBS else None

    def _nobody_looks_at(self, record: Record, known: Record | None) -> bool:
        job = self._family(record)
        return job.ended if job is not None else known is not None and not known.raw

    def _concerned(self, record: Record) -> tuple[JobKey, ...]:
        if record.kind is FINETUNE_JOBS:
            return (JobKey(*record.ref),)
        if record.kind in _CHILDREN:
            job = self._family(record)
            return () if job is None or (job.ended and not record.live) else (JobKey(*job.ref),)
        keys = tuple(self._waiting.get(record.ref.name, ()))
        return tuple(key for key in keys if record.kind is not TEMPLATES or key.namespace == record.ref.namespace)

    def _index(self, record: Record) -> None:
        if record.kind in (FINETUNE_JOBS, BATCH_JOBS):
            self._by_uid[record.uid] = record.kind, record.ref
        if record.kind in _CHILDREN and record.owner:
            self._owned.setdefault(record.owner, {})[record.kind, record.ref] = None
        if record.kind is FINETUNE_JOBS:
            self._phases[record.phase] += 1
            if record.template:
                self._waiting.setdefault(record.template, set()).add(JobKey(*record.ref))
            if record.ended:
                for job in self.owned_by(record.uid, BATCH_JOBS):
                    self._shed(job)
                    for pod in self.owned_by(job.uid, PODS):
                        self._shed(pod)

    def _shed(self, record: Record) -> None:
        self._records[record.kind][record.ref] = replace(record, raw=b"")

    def _drop(self, record: Record | None) -> None:
        if record is None:
            return
        del self._records[record.kind][record.ref]
        if record.kind in (FINETUNE_JOBS, BATCH_JOBS):
            self._by_uid.pop(record.uid, None)
        if record.kind is FINETUNE_JOBS:
            self._phases[record.phase] -= 1
            if record.template:
                self._waiting[record.template].discard(JobKey(*record.ref))
                if not self._waiting[record.template]:
                    del self._waiting[record.template]
        elif record.owner and record.kind in _CHILDREN:
            self._owned[record.owner].pop((record.kind, record.ref))
            if not self._owned[record.owner]:
                del self._owned[record.owner]
