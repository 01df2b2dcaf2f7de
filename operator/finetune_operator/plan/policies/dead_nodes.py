"""Pods that do not go: a node that is down never confirms that its pods have stopped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from finetune_operator.plan.model.observed import PodState
from finetune_operator.plan.model.text import count

_MARGIN: Final = timedelta(seconds=30)
"""How long after its grace period a pod may still be there before it is called stuck."""


@dataclass(frozen=True)
class Draining:
    """What is known of pods that are being deleted."""

    message: str | None
    """Names the stuck pods and their nodes, and says what to do; None while none is stuck."""
    recheck_after: float | None
    """Seconds until the next of them would be stuck."""


def draining(pods: Iterable[PodState], now: datetime) -> Draining:
    """Which pods should have gone by now."""
    going = [(pod, pod.gone_by + _MARGIN) for pod in pods if pod.gone_by is not None]
    stuck = [pod for pod, due in going if due <= now]
    waits = [(due - now).total_seconds() for _, due in going if due > now]
    return Draining(_words(stuck, now) if stuck else None, min(waits) + 1 if waits else None)


def _words(stuck: list[PodState], now: datetime) -> str:
    first = min(stuck, key=lambda pod: (pod.gone_by or now, pod.name))
    due = f"{first.gone_by or now:%Y-%m-%d %H:%M:%S} UTC"
    where = f"on the node {first.node}" if first.node else "without a node"
    more = f" (and {count(len(stuck) - 1, 'more pod')})" if len(stuck) > 1 else ""
    node = first.node or "NODE"
    return (
        f"the pod {first.name} {where}{more} should have gone by {due}: the node may be down. The job goes on once "
        f"the node answers, is removed (kubectl delete node {node}), or is marked as shut down "
        f"(kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute)"
    )
