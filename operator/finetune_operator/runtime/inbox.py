"""Where observations come in: they update the store, and the jobs they concern are queued."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from finetune_operator.runtime.kinds import PODS, JobKey, Kind
from finetune_operator.runtime.queue import WorkQueue
from finetune_operator.runtime.store import Record, Ref, Store
from finetune_operator.runtime.turns import Lane

_SETTLE_SECONDS: Final = 0.05
"""What follows a pod's creation within this time is told together with it."""


class Inbox:
    """One door for watch events, resyncs and the API server's answers to our own writes.

    A process that does not lead keeps its store warm, and queues nothing.
    """

    def __init__(self, store: Store, queue: WorkQueue[JobKey]) -> None:
        self._store = store
        self._queue = queue
        self._open = False

    def seen(self, record: Record) -> None:
        """An object as it stands now."""
        concerned = self._store.put(record)
        if record.kind is PODS and self._open:
            for key in concerned:
                self._queue.wake(key, 0.0 if record.over else _SETTLE_SECONDS)
        else:
            self._enqueue(concerned)

    def is_newer(self, kind: Kind, ref: Ref, uid: str, version: int) -> bool:
        """Whether an object is known otherwise. Other threads may ask: a wrong answer only costs a second look."""
        return self._store.is_newer(kind, ref, uid, version)

    def gone(self, kind: Kind, ref: Ref, uid: str, version: int | None = None) -> None:
        """An object that no longer exists, or since that version has no label any more by which it is watched."""
        self._enqueue(self._store.remove(kind, ref, uid, version))

    def open(self) -> None:
        """Begins to queue, first of all every job at which something may be to do."""
        self._open = True
        self._enqueue(self._store.open_jobs(), Lane.ROUND)

    def close(self) -> None:
        """Stops queueing, and forgets what waits."""
        self._open = False
        self._queue.clear()

    def _enqueue(self, keys: Iterable[JobKey], lane: Lane = Lane.USUAL) -> None:
        if self._open:
            for key in keys:
                self._queue.add(key, lane)
