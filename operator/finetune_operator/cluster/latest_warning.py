"""Why pods are not made or do not start, where only events say so: quota, pod security, volumes, networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from finetune_operator.cluster.client import Client, RefusedError
from finetune_operator.cluster.reported import Json
from finetune_operator.runtime.kinds import EVENTS, JobKey

_REASONS: Final = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "FailedCreate"}
)
"""Of pods; the last one is of Jobs."""
REMEMBERED_SECONDS: Final = 15.0
_MOST: Final = "20"


class Warned(NamedTuple):
    """One of several objects, and the newest warning about it in Kubernetes' own words."""

    uid: str
    words: str | None


class _Answer(NamedTuple):
    asked_at: float
    warned: Warned


class LatestWarnings:
    """Warnings about Jobs and pods; one question for a whole gang, and one answer a job is remembered for a while."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._answers: dict[JobKey, _Answer] = {}

    async def about_one_of(self, key: JobKey, uids: Sequence[str]) -> Warned:
        """What is said about one of these objects. One with a warning is asked about again, else the next in turn."""
        known = self._answers.get(key)
        if known is not None and known.warned.uid in uids and self._clock() < known.asked_at + REMEMBERED_SECONDS:
            return known.warned
        uid = _next(uids, known.warned if known else None)
        warned = Warned(uid, await self._ask(key.namespace, uid))
        self._answers[key] = _Answer(self._clock(), warned)
        return warned

    def forget(self, key: JobKey) -> None:
        self._answers.pop(key, None)

    async def _ask(self, namespace: str, uid: str) -> str | None:
        query = [("fieldSelector", f"involvedObject.uid={uid},type=Warning"), ("limit", _MOST)]
        try:
            found = await self._client.get(EVENTS.path(namespace), query)
        except RefusedError:
            return None
        told = [event for event in found["items"] if event.get("reason") in _REASONS]
        if not told:
            return None
        newest = max(told, key=_moment)
        return f"{newest['reason']}: {newest.get('message', '')}"


def _next(uids: Sequence[str], before: Warned | None) -> str:
    if before is None or before.uid not in uids:
        return uids[0]
    return before.uid if before.words else uids[(uids.index(before.uid) + 1) % len(uids)]


def _moment(event: Json) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
