"""What the operator knows of the cluster: the newest state of every watched object, as compact JSON."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import pydantic_core

from finetune_operator.api.status import Phase
from finetune_operator.plan.model.names import LABEL_JOB
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, TEMPLATES, Body, JobKey, Kind

_REMEMBERED_DELETIONS: Final = 8192
_ENDED: Final = frozenset(phase.value for phase in Phase if phase.is_terminal)


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
    """Compact JSON; empty for a job that has ended, which nobody looks at again."""
    job: str | None = None
    """Name of the FineTuneJob that a Job or pod belongs to."""
    phase: str = ""
    """Phase of a FineTuneJob."""
    template: str | None = None
    """Name of the template that a FineTuneJob waits to be started with."""

    @property
    def ended(self) -> bool:
        return self.phase in _ENDED


def record_of(kind: Kind, body: Body) -> Record:
    """Takes what is needed out of an object as the API server sent it."""
    metadata = body["metadata"]
    job = template = None
    phase = ""
    if kind is FINETUNE_JOBS:
        status = body.get("status") or {}
        phase = status.get("phase") or Phase.PENDING.value
        template = None if phase in _ENDED or status.get("startTime") else body["spec"]["template"]["name"]
    elif kind in (BATCH_JOBS, PODS):
        job = (metadata.get("labels") or {}).get(LABEL_JOB)
    return Record(
        kind=kind,
        ref=Ref(metadata.get("namespace") or "", metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        raw=b"" if phase in _ENDED else pydantic_core.to_json(kind.trim(body)),
        job=job,
        phase=phase,
        template=template,
    )


class Store:
    """The newest record of every object, with the indexes that turn an object into the jobs it concerns.

    Not safe for threads: it belongs to the operator's event loop.
    """

    def __init__(self) -> None:
        self._records: dict[Kind, dict[Ref, Record]] = defaultdict(dict)
        self._children: dict[JobKey, dict[tuple[str, Ref], Record]] = {}
        self._waiting: dict[str, set[JobKey]] = {}
        self._phases: Counter[str] = Counter()
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def put(self, record: Record) -> tuple[JobKey, ...]:
        """Keeps a record if it is news, and says which jobs it concerns. A deleted object stays deleted."""
        if not self.is_newer(record.kind, record.ref, record.uid, record.version):
            return ()
        self._drop(self._records[record.kind].get(record.ref))
        if record.job and self._has_ended(record):
            record = replace(record, raw=b"")
        self._records[record.kind][record.ref] = record
        self._index(record)
        return self._concerned(record)

    def remove(self, kind: Kind, ref: Ref, uid: str) -> tuple[JobKey, ...]:
        """Forgets an object, and says which jobs that concerns."""
        self._deleted[uid] = None
        if len(self._deleted) > _REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        record = self._records[kind].get(ref)
        if record is None or record.uid != uid:
            return ()
        self._drop(record)
        return self._concerned(record)

    def is_newer(self, kind: Kind, ref: Ref, uid: str, version: int) -> bool:
        """Whether this state of an object is one that the store does not know yet."""
        if uid in self._deleted:
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

    def get(self, kind: Kind, namespace: str, name: str) -> Record | None:
        return self._records[kind].get(Ref(namespace, name))

    def job(self, key: JobKey) -> Record | None:
        return self._records[FINETUNE_JOBS].get(Ref(*key))

    def children(self, key: JobKey, kind: Kind) -> list[dict[str, Any]]:
        """The Jobs or pods that carry the job's label, parsed."""
        records = self._children.get(key, {}).values()
        return [pydantic_core.from_json(record.raw) for record in records if record.kind is kind and record.raw]

    def open_jobs(self) -> Iterator[JobKey]:
        """Every job that has not ended."""
        return (JobKey(*ref) for ref, record in self._records[FINETUNE_JOBS].items() if not record.ended)

    def jobs_with_children(self) -> list[JobKey]:
        """Every job that has not ended and has Jobs or pods."""
        return [key for key in self._children if self._is_open(key)]

    def phases(self) -> Mapping[str, int]:
        """How many jobs there are in each phase."""
        return self._phases

    def count(self, kind: Kind) -> int:
        return len(self._records[kind])

    def _has_ended(self, child: Record) -> bool:
        parent = self.job(JobKey(child.ref.namespace, child.job or ""))
        return parent is not None and parent.ended

    def _is_open(self, key: JobKey) -> bool:
        record = self.job(key)
        return record is not None and not record.ended

    def _concerned(self, record: Record) -> tuple[JobKey, ...]:
        if record.kind in (BATCH_JOBS, PODS):
            keys: tuple[JobKey, ...] = (JobKey(record.ref.namespace, record.job),) if record.job else ()
        elif record.kind is FINETUNE_JOBS:
            return (JobKey(*record.ref),)
        else:
            keys = tuple(self._waiting.get(record.ref.name, ()))
            if record.kind is TEMPLATES:
                keys = tuple(key for key in keys if key.namespace == record.ref.namespace)
        return tuple(key for key in keys if self._is_open(key))

    def _index(self, record: Record) -> None:
        if record.kind is FINETUNE_JOBS:
            self._phases[record.phase] += 1
            if record.template:
                self._waiting.setdefault(record.template, set()).add(JobKey(*record.ref))
            if record.ended:
                self._shed_children(JobKey(*record.ref))
        elif record.job:
            children = self._children.setdefault(JobKey(record.ref.namespace, record.job), {})
            children[record.kind.plural, record.ref] = record

    def _shed_children(self, key: JobKey) -> None:
        for child in list(self._children.get(key, {}).values()):
            shed = replace(child, raw=b"")
            self._records[child.kind][child.ref] = shed
            self._children[key][child.kind.plural, child.ref] = shed

    def _drop(self, record: Record | None) -> None:
        if record is None:
            return
        del self._records[record.kind][record.ref]
        if record.kind is FINETUNE_JOBS:
            self._phases[record.phase] -= 1
            if record.template:
                self._waiting[record.template].discard(JobKey(*record.ref))
        elif record.job:
            key = JobKey(record.ref.namespace, record.job)
            self._children[key].pop((record.kind.plural, record.ref))
            if not self._children[key]:
                del self._children[key]
