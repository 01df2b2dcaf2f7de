"""Events on FineTuneJobs: what `kubectl describe` tells as the job's story."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

import structlog

from finetune_operator.api.base import API_VERSION
from finetune_operator.api.resources import ObjectMeta
from finetune_operator.cluster.client import Client, ConflictError, NotFoundError, RefusedError
from finetune_operator.plan.model.names import MANAGED_BY
from finetune_operator.plan.model.plan import JobEvent
from finetune_operator.runtime.kinds import EVENTS

_log = structlog.get_logger(__name__)
_OCCASION: Final = "finetune-operator.io/occasion"
_LONGEST: Final = 1000


async def send(client: Client, job: ObjectMeta, event: JobEvent, now: datetime) -> None:
    """Sends an event; the same words again are counted on the first one.

    Name and occasion follow from what was observed, so that a reconcile that is repeated after a crash
    neither sends nor counts an event twice. What the API server refuses is logged: an event is not worth
    holding a job up.
    """
    namespace = job.namespace or ""
    path = EVENTS.path(namespace)
    body = _event(job, event, now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    name = body["metadata"]["name"]
    try:
        try:
            await client.create(path, body)
        except ConflictError:
            await _count(client, f"{path}/{name}", body)
    except (RefusedError, NotFoundError) as error:
        _log.warning("event_refused", job=job.name, namespace=namespace, error=str(error))


async def _count(client: Client, path: str, body: dict[str, Any]) -> None:
    before = await client.get(path)
    occasion = body["metadata"]["annotations"]
    if (before["metadata"].get("annotations") or {}).get(_OCCASION) == occasion[_OCCASION]:
        return
    counted = {
        "metadata": {"annotations": occasion},
        "count": (before.get("count") or 1) + 1,
        "lastTimestamp": body["lastTimestamp"],
    }
    await client.merge(path, counted)


def _event(metadata: ObjectMeta, event: JobEvent, moment: str) -> dict[str, Any]:
    words = f"{metadata.uid} {event.type} {event.reason} {event.message}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata.name}.{hashlib.sha256(words.encode()).hexdigest()[:16]}",
            "namespace": metadata.namespace,
            "annotations": {_OCCASION: metadata.resource_version},
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "FineTuneJob",
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        },
        "type": event.type.value,
        "reason": event.reason.value,
        "message": event.message[:_LONGEST],
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
        "source": {"component": MANAGED_BY},
        "reportingComponent": MANAGED_BY,
        "reportingInstance": MANAGED_BY,
    }
