"""The ConfigMaps with the jobs' resolved specs: immutable, so that each is read once, most of them in one list."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

import structlog

from finetune_operator.cluster.client import ApiError, Client, NotFoundError
from finetune_operator.cluster.reported import Json
from finetune_operator.plan.manifests.stages import parse_resolved
from finetune_operator.plan.model.names import LABEL_RESOLVED, RESOLVED_KEY, SELECTOR, resolved_name
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.runtime.kinds import CONFIG_MAPS, JobKey, controller_of

_log = structlog.get_logger(__name__)
_LISTED: Final = replace(CONFIG_MAPS, selector=f"{SELECTOR},{LABEL_RESOLVED}=true")


class _Known(NamedTuple):
    uid: str
    packed: bytes | None
    """The spec's JSON, compressed; None where there is no ConfigMap."""


class ResolvedSpecs:
    """Resolved specs of the jobs that are not over. That a job has none is remembered, too: only we make them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[JobKey, _Known] = {}
        self._complete = False
        """Whether what is not known is not there, since all of them were listed."""

    async def load(self, namespaces: tuple[str, ...], uid_of: Callable[[JobKey], str | None]) -> None:
        """Lists all of them, in pages; `uid_of` tells the uid of a job that may need its own, else None.

        What was known before is forgotten: another process may have led meanwhile, and made some.
        """
        self._known.clear()
        self._complete = False
        try:
            for namespace in namespaces or (None,):
                async for page in self._client.pages(_LISTED, namespace):
                    for config_map in page.items:
                        self._take(config_map, uid_of)
        except ApiError as error:  # then each is read when it is needed
            _log.warning("resolved_specs_not_listed", error=str(error))
            return
        self._complete = True

    async def of(self, key: JobKey, uid: str, *, started: bool) -> ResolvedSpec | None:
        """The resolved spec of the job with this uid, if it has one."""
        known = self._known.get(key)
        if known is None or known.uid != uid:
            # One that a former version made has no label to be listed by; a job that has not started has none.
            listed = self._complete and not started
            known = self._known[key] = _Known(uid, None if listed else await self._fetch(key, uid))
        if known.packed is None:
            return None
        return parse_resolved({RESOLVED_KEY: zlib.decompress(known.packed).decode()})

    def created(self, key: JobKey, uid: str, config_map: Json) -> None:
        """A ConfigMap that was just made for the job with this uid, or was found to have been."""
        if config_map["metadata"]["name"] == resolved_name(key.name):
            self._known[key] = _Known(uid, _packed(config_map))

    def forget(self, key: JobKey) -> None:
        self._known.pop(key, None)

    def _take(self, config_map: Json, uid_of: Callable[[JobKey], str | None]) -> None:
        metadata, owner = config_map["metadata"], controller_of(config_map)
        key = JobKey(metadata["namespace"], owner.get("name", ""))
        wanted = uid_of(key)
        is_theirs = metadata["name"] == resolved_name(key.name) and owner.get("uid") == wanted
        if wanted is not None and is_theirs and "deletionTimestamp" not in metadata:
            self._known[key] = _Known(wanted, _packed(config_map))

    async def _fetch(self, key: JobKey, uid: str) -> bytes | None:
        try:
            found = await self._client.get(CONFIG_MAPS.path(key.namespace, resolved_name(key.name)))
        except NotFoundError:
            return None
        is_ours = controller_of(found).get("uid") == uid and "deletionTimestamp" not in found["metadata"]
        return _packed(found) if is_ours else None


def _packed(config_map: Json) -> bytes:
    text = str((config_map.get("data") or {}).get(RESOLVED_KEY, ""))
    return zlib.compress(text.encode(), 1)
