"""Why pods are not made or do not start, where only events say so: quota, pod security, volumes, networks."""

from __future__ import annotations

from typing import Final

from finetune_operator.cluster.client import Client, RefusedError
from finetune_operator.cluster.jobs import Json
from finetune_operator.runtime.kinds import EVENTS

POD_REASONS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"})
JOB_REASONS: Final = frozenset({"FailedCreate"})


async def latest_warning(client: Client, namespace: str, uid: str, reasons: frozenset[str]) -> str | None:
    """The newest warning about the object with this uid, in Kubernetes' own words."""
    query = [("fieldSelector", f"involvedObject.uid={uid},type=Warning"), ("limit", "100")]
    try:
        found = await client.get(EVENTS.path(namespace), query)
    except RefusedError:
        return None
    told = [event for event in found["items"] if event.get("reason") in reasons]
    if not told:
        return None
    newest = max(told, key=_moment)
    return f"{newest['reason']}: {newest.get('message', '')}"


def _moment(event: Json) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
