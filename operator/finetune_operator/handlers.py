"""Kopf, and nothing but Kopf: it watches, and every event only updates the store and queues a key.

An event is taken in by the filter of its handler, which then never runs: what Kopf does around a handler's call takes
more time than everything that is ours.

It runs in a thread with an event loop of its own, since it cancels whatever is started in its loop after
it. It writes nothing: handlers of raw events need no annotations and no finalizers, and its storages,
event posting and peering are off.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import aiohttp
import kopf
import structlog
from kopf._cogs.clients import api

from finetune_operator.cluster.config import Credentials
from finetune_operator.plan.model.names import MANAGED_BY
from finetune_operator.runtime.deep_json import from_json
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import WATCHED, Body, Kind
from finetune_operator.runtime.recent import Recent
from finetune_operator.runtime.store import Record, Ref, record_of

_log = structlog.get_logger(__name__)
_STOP_SECONDS: Final = 10.0
_EXIT_SECONDS: Final = 30.0
_REMEMBERED: Final = 256


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing: raw events have no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None: ...

    def purge(self, **_: Any) -> None: ...

    def touch(self, **_: Any) -> None: ...

    def clear(self, *, essence: Any) -> Any:
        return essence


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: raw events are compared with nothing, so that no object need be copied for it."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None: ...


async def _never_called(**_: Any) -> None: ...


@dataclass
class Watcher:
    """Kopf in its own thread. `failed` is set, on the operator's loop, when it ends without having been asked to."""

    inbox: Inbox
    credentials: Callable[[], Awaitable[Credentials]]
    namespaces: tuple[str, ...]
    loop: asyncio.AbstractEventLoop
    count: Callable[[str, str], None]
    """Told the kind and type of every event; those of Kopf's first list are `listed`."""
    lost: Callable[[str], None] = lambda _: None
    """Told, on the operator's loop, the kind of an event that could not be taken in."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _own_loop: asyncio.AbstractEventLoop | None = None
    _alive_at: float = 0.0
    _named: Recent[str, None] = field(default_factory=lambda: Recent(_REMEMBERED), init=False)

    def start(self) -> None:
        self._alive_at = self.loop.time()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends the watches; the thread is left behind if it does not end in time."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def silent_for(self) -> float:
        """Seconds since Kopf's loop last ran; asks it for another sign of life."""
        if self._thread is None:
            return 0.0
        if self._own_loop is not None and not self._own_loop.is_closed():
            self._own_loop.call_soon_threadsafe(self._sign_of_life)
        return self.loop.time() - self._alive_at

    def _sign_of_life(self) -> None:
        self._alive_at = self.loop.time()

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except Exception:  # noqa: BLE001 - whatever ends the watches ends the operator: its main loop is told
            _log.exception("watching_failed")
        finally:
            if not self._stop.is_set():
                self.loop.call_soon_threadsafe(self.failed.set)

    async def _watch(self) -> None:
        self._own_loop = asyncio.get_running_loop()
        read_deep_json()
        await kopf.operator(
            registry=self.registry(),
            settings=kopf_settings(),
            # Kopf would look its own name up, which a user without an entry in /etc/passwd has none of.
            identity=cast("Any", MANAGED_BY),
            standalone=True,
            clusterwide=not self.namespaces,
            namespaces=self.namespaces,
            stop_flag=self._stop,
        )

    def registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in WATCHED:
            kopf.on.event(
                kind.group,
                kind.version,
                kind.plural,
                id=kind.plural,
                registry=registry,
                when=self.receiver(kind),
            )(_never_called)
        return registry

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        found = await self.credentials()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            insecure=found.insecure,
            certificate_path=found.certificate_path,
            private_key_path=found.private_key_path,
            username=found.username,
            password=found.password,
            scheme=found.scheme,
            token=found.token,
        )

    def receiver(self, kind: Kind) -> Callable[..., bool]:
        """Takes an event in unless it is no news, as most of Kopf's own first list is, and never has a handler called.

        It raises nothing: Kopf would end this object's events, or all of them, and never try again, which the resync
        must.
        """

        def receive(event: Any, **_: Any) -> bool:
            try:
                if self._is_newer(kind, event["type"], event["object"]):
                    self._receive(kind, event["type"], event["object"])
            except Exception as error:  # noqa: BLE001 - as above
                self._lose(kind, error)
            return False

        return receive

    def _is_newer(self, kind: Kind, change: str | None, body: Body) -> bool:
        self.count(kind.plural, (change or "listed").lower())
        metadata = body["metadata"]
        ref = Ref(metadata.get("namespace") or "", metadata["name"])
        return change == "DELETED" or self.inbox.is_newer(kind, ref, metadata["uid"], int(metadata["resourceVersion"]))

    def _receive(self, kind: Kind, change: str | None, body: Body) -> None:
        """Takes an event over to the operator's loop, already made small."""
        if change == "DELETED":
            metadata = body["metadata"]
            ref = Ref(metadata.get("namespace") or "", metadata["name"])
            version = int(metadata["resourceVersion"])
            self.loop.call_soon_threadsafe(self._gone, kind, ref, metadata["uid"], version)
        else:
            self.loop.call_soon_threadsafe(self._seen, record_of(kind, body))

    def _seen(self, record: Record) -> None:
        try:
            self.inbox.seen(record)
        except Exception as error:  # noqa: BLE001 - as above
            self._lose(record.kind, error)

    def _gone(self, kind: Kind, ref: Ref, uid: str, version: int) -> None:
        try:
            self.inbox.gone(kind, ref, uid, version)
        except Exception as error:  # noqa: BLE001 - as above
            self._lose(kind, error)

    def _lose(self, kind: Kind, error: Exception) -> None:
        """An event could not be taken in: somebody else must look at what there is now."""
        if self._stop.is_set():
            return
        what = f"{kind.plural}: {error!r}"[:256]
        if what not in self._named:
            self._named[what] = None
            _log.error("watch_event_lost", kind=kind.plural, error=repr(error)[:256], exc_info=error)
        self.loop.call_soon_threadsafe(self.lost, kind.plural)


def read_deep_json() -> None:
    """Has Kopf read objects that were nested to break it: it parses watches by its `json`, lists by aiohttp's default.

    Neither can be given a parser, so that both are replaced; Kopf's version is pinned, and a test watches over it.
    """
    vars(api)["json"] = _Json
    defaults = aiohttp.ClientResponse.json.__kwdefaults__ or {}
    defaults["loads"] = from_json


class _Json:
    """What Kopf uses of the module `json`."""

    loads = staticmethod(from_json)
    dumps = staticmethod(json.dumps)
    JSONDecodeError = json.JSONDecodeError


def kopf_settings() -> kopf.OperatorSettings:
    """As measured: least memory, quickest start, and no write."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # Kopf holds an object for so long after its event: at the start that would be all of them, parsed.
    settings.queueing.idle_timeout = 0.02
    settings.watching.chunk_size = 100
    settings.process.ultimate_exiting_timeout = _EXIT_SECONDS
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.diffbase_storage = _NoDiffBase()
    for kind in WATCHED:
        if kind.selector:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.selector
    return settings
