"""Attempts: the launches of the training pods, each of which is charged to maxRestarts at most once.

Status and Job together say which attempt is current. A plain gang has a Job for each attempt, with the attempt's
number as a label; under Kueue one Job goes on through several, and the creation time of pods tells them apart (both
by the API server's clock, in whole seconds). The status tells of an attempt's end before its pods are taken down, so
whatever an operator that dies in between leaves undone is found in the status.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from finetune_operator.api.status import MAX_ATTEMPTS, Attempt, AttemptEnd, JobStatus
from finetune_operator.plan.model.observed import PodState, StageJob
from finetune_operator.plan.model.text import cut
from finetune_trainer.contract import Device, Topology

MAX_ATTEMPT_MESSAGE: Final = 256
NOT_TRIES: Final = frozenset({AttemptEnd.PREEMPTED, AttemptEnd.SUSPENDED})
"""Ends after which the next attempt does not wait: whoever took the pods down says when they come back."""


def current(status: JobStatus, job: StageJob | None, topology: Topology | None) -> Attempt | None:
    """The newest attempt; one that the status has not heard of is known by its Job."""
    last = status.attempts[-1] if status.attempts else None
    if job is None:
        return last
    if last is None or job.attempt > last.number:
        return Attempt(number=job.attempt, topology=topology, start=job.created)
    runs = not (job.suspended or job.has_ended or job.deleting)
    if last.is_over and runs and goes_on(job, last) and _has_given_way(job, last):
        return begin(last, topology, min(pod.created for pod in job.pods if is_newer(pod, last)))
    return last


def goes_on(job: StageJob, ended: Attempt) -> bool:
    """Whether the Job is to run the next attempt, too: one that Kueue queues, or that somebody else holds, or held
    until now, and brings back by himself. A plain Job is one attempt.
    """
    return job.queued or job.suspended or ended.reason == AttemptEnd.PREEMPTED


def _has_given_way(job: StageJob, last: Attempt) -> bool:
    """Whether there are pods of the next attempt, and none of the one that has ended is left to be taken down."""
    return any(is_newer(pod, last) for pod in job.pods) and not any(is_left(pod, last) for pod in job.pods)


def begin(last: Attempt | None, topology: Topology | None, now: datetime) -> Attempt:
    """The attempt after `last`."""
    return Attempt(number=last.number + 1 if last else 1, topology=topology, start=now)


def end(  # noqa: PLR0913 - an end has this much to it
    attempt: Attempt,
    now: datetime,
    reason: AttemptEnd,
    *,
    pods: tuple[PodState, ...] = (),
    exit_code: int | None = None,
    message: str | None = None,
) -> Attempt:
    """The attempt with its end. Its pods, those that are known still, say when they gave their GPUs back."""
    told = cut(message, MAX_ATTEMPT_MESSAGE) if message else None
    ended = {"end": whole_seconds(now), "reason": reason, "exit_code": exit_code, "message": told}
    return attempt.model_copy(update=ended | {"gpu_seconds": _gpu_seconds(attempt, _stopped_at(pods, now))})


def seen_running(attempt: Attempt, pods: tuple[PodState, ...], nodes: int, now: datetime) -> Attempt:
    """The attempt with the moment at which all of its pods ran, once they have, whoever looked at it then."""
    since = None if attempt.is_over or attempt.running_since else _together_since(pods, nodes, now)
    if since is None:
        return attempt
    return attempt.model_copy(update={"running_since": since, "last_pod_created": newest_pod(pods)})


def _together_since(pods: tuple[PodState, ...], nodes: int, now: datetime) -> datetime | None:
    """When the last rank's first pod began while the others' still ran. Nodes' clocks may be off: it is not before the
    API server had made the pods, and not after now.
    """
    first: dict[int, PodState] = {}
    for pod in sorted(pods, key=lambda pod: pod.created):
        if pod.started is not None:
            first.setdefault(pod.index, pod)
    if set(range(nodes)) - set(first):
        return None
    since = max(pod.started for pod in first.values() if pod.started is not None)
    if any(pod.finished is not None and pod.finished < since for pod in first.values()):
        return None
    return whole_seconds(min(now, max(since, *(pod.created for pod in first.values()))))


def _stopped_at(pods: tuple[PodState, ...], now: datetime) -> datetime:
    """When the last of the pods ended; `now` while one has not. A node's clock may be ahead: it is not after now."""
    moments = [pod.finished for pod in pods if pod.ended and pod.finished is not None]
    return min(now, max(moments)) if moments and len(moments) == len(pods) else now


def _gpu_seconds(attempt: Attempt, until: datetime) -> int | None:
    layout = attempt.topology
    if layout is None or layout.device is Device.CPU:
        return None
    if attempt.running_since is None:
        return 0
    return max(0, round((until - attempt.running_since).total_seconds())) * layout.world_size


def record(attempts: tuple[Attempt, ...], *changed: Attempt) -> tuple[Attempt, ...]:
    """`attempts` with `changed` in the places of their numbers; the newest are kept."""
    by_number = {attempt.number: attempt for attempt in (*attempts, *changed)}
    return tuple(by_number[number] for number in sorted(by_number))[-MAX_ATTEMPTS:]


def pods_of(job: StageJob, attempt: Attempt, history: tuple[Attempt, ...]) -> tuple[PodState, ...]:
    """Pods of the attempt: those made after the newest pod of the attempts before it on the same Job."""
    earlier = [a.last_pod_created for a in history if job.attempt <= a.number < attempt.number and a.last_pod_created]
    boundary = max(earlier, default=None)
    return tuple(pod for pod in job.pods if boundary is None or pod.created > boundary)


def is_newer(pod: PodState, attempt: Attempt) -> bool:
    """Whether the pod was made after the newest pod of the attempt."""
    return attempt.last_pod_created is None or pod.created > attempt.last_pod_created


def is_left(pod: PodState, ended: Attempt) -> bool:
    """Whether a pod of the attempt has to be deleted. Those of a Job that was suspended go by themselves."""
    goes = pod.deleting or (pod.ended and ended.reason == AttemptEnd.PREEMPTED)
    return not goes and not is_newer(pod, ended)


def newest_pod(pods: tuple[PodState, ...]) -> datetime | None:
    """Creation time of the newest of the pods."""
    return max((pod.created for pod in pods), default=None)


def whole_seconds(moment: datetime) -> datetime:
    """As Kubernetes keeps it."""
    return Attempt(number=1, start=moment).start
