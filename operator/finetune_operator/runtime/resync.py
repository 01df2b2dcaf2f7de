"""The periodic resync: lists every watched kind, because a watch can lose what happened while it was down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import WATCHED, Body, Kind
from finetune_operator.runtime.store import Ref, Store, record_of
from finetune_operator.runtime.workers import TransientError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: tuple[Body, ...]
    version: int
    """resourceVersion of the whole list."""


class Lister(Protocol):
    """Lists all objects of a kind (of one namespace, if there is one) in pages."""

    def __call__(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]: ...


@dataclass
class Resync:
    """Brings the store up to date with complete lists. Unchanged objects cost a look at their version."""

    store: Store
    inbox: Inbox
    pages: Lister
    namespaces: tuple[str, ...]
    """Namespaces that are watched; all when empty."""
    clock: Callable[[], float]
    observe_seconds: Callable[[float], None]
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the store has been complete."""
    _fresh_from: float = field(default=float("-inf"), init=False)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def fresher_than(self, moment: float) -> None:
        """Returns when a complete list that began after this moment is in the store."""
        async with self._one_at_a_time:
            if self._fresh_from < moment:
                await self._once()

    async def _once(self) -> None:
        began = self.clock()
        for kind in WATCHED:
            for namespace in self.namespaces if kind.namespaced and self.namespaces else (None,):
                await self._list(kind, namespace)
        self.store.shed_strangers()
        seconds, self._fresh_from = self.clock() - began, began
        self.observe_seconds(seconds)
        self.synced.set()
        _log.info("resynced", seconds=round(seconds, 3), **{kind.plural: self.store.count(kind) for kind in WATCHED})

    async def run(self, every: float) -> None:
        """Lists everything every so many seconds, for ever."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.fresher_than(self.clock())
            except TransientError as error:
                _log.warning("resync_failed", error=str(error))

    async def _list(self, kind: Kind, namespace: str | None) -> None:
        found: dict[Ref, str] = {}
        version = 0
        async for page in self.pages(kind, namespace):
            version = page.version
            for body in page.items:
                self._see(kind, body, found)
            await asyncio.sleep(0)
        for record in self.store.missing_from(kind, namespace, found, version):
            self.inbox.gone(kind, record.ref, record.uid, version)

    def _see(self, kind: Kind, body: Body, found: dict[Ref, str]) -> None:
        metadata = body["metadata"]
        ref = Ref(metadata.get("namespace") or "", metadata["name"])
        found[ref] = metadata["uid"]
        if self.store.is_newer(kind, ref, metadata["uid"], int(metadata["resourceVersion"])):
            self.inbox.seen(record_of(kind, body))
