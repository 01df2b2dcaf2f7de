"""The ConfigMap with a job's resolved spec: immutable, so that it is fetched once."""

from __future__ import annotations

from finetune_operator.cluster.client import Client, NotFoundError
from finetune_operator.cluster.jobs import Json, is_owned_by
from finetune_operator.plan.manifests.stages import parse_resolved
from finetune_operator.plan.model.names import resolved_name
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.runtime.kinds import CONFIG_MAPS, JobKey
from finetune_operator.runtime.workers import TransientError


class LeftoverError(TransientError):
    """A child of an earlier job of the same name is still there; the garbage collector removes it soon."""


class ResolvedSpecs:
    """Resolved specs of open jobs, as JSON. That a job has none is remembered, too: only we make them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[JobKey, tuple[str, dict[str, str]]] = {}

    async def of(self, key: JobKey, uid: str) -> ResolvedSpec | None:
        """The resolved spec of the job with this uid, if it has one."""
        known = self._known.get(key)
        if known is None or known[0] != uid:
            known = self._known[key] = (uid, await self._fetch(key, uid))
        return parse_resolved(known[1]) if known[1] else None

    def applied(self, key: JobKey, uid: str, config_map: Json) -> None:
        """A ConfigMap that was just made for the job with this uid."""
        if config_map["metadata"]["name"] == resolved_name(key.name):
            self._known[key] = (uid, config_map.get("data") or {})

    def forget(self, key: JobKey) -> None:
        self._known.pop(key, None)

    def clear(self) -> None:
        """Forgets everything: another process may have led, and made some."""
        self._known.clear()

    async def _fetch(self, key: JobKey, uid: str) -> dict[str, str]:
        name = resolved_name(key.name)
        try:
            found = await self._client.get(CONFIG_MAPS.path(key.namespace, name))
        except NotFoundError:
            return {}
        if not is_owned_by(found, uid):
            raise LeftoverError(f"the ConfigMap {name} belongs to an earlier job of this name")
        data: dict[str, str] = found.get("data") or {}
        return data
