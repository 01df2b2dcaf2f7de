"""Reads pods: how far they are, how they ended, and what keeps them from starting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from finetune_operator.cluster import reported
from finetune_operator.cluster.bounds import is_count, is_figure
from finetune_operator.cluster.reported import Json
from finetune_operator.plan.model.names import CONTAINER
from finetune_operator.plan.model.observed import PodPhase, PodState
from finetune_operator.runtime.kinds import INDEX_LABEL
from finetune_trainer.contract import Result

_PHASES: Final = {phase.value: phase for phase in PodPhase}
_UNTOLD: Final = frozenset({"Error", "Completed"})
_STARTING: Final = frozenset({"", "ContainerCreating", "PodInitializing"})


@dataclass(frozen=True)
class PodAddress:
    """Where a running pod can be asked for its progress."""

    name: str
    ip: str


def pod_state(pod: Json) -> PodState:
    """A pod's JSON as a PodState."""
    metadata, status = pod["metadata"], pod.get("status", {})
    trainer = _trainer(status)
    ended = _terminated(trainer)
    words = str(ended.get("message") or "")
    result = _result(words)
    disruption = reported.condition(status, "DisruptionTarget")
    return PodState(
        name=metadata["name"],
        phase=_phase(status),
        created=_time(metadata["creationTimestamp"]),
        index=_index(metadata),
        node=pod.get("spec", {}).get("nodeName"),
        started=_started(trainer, _time(metadata["creationTimestamp"])),
        gone_by=_time(metadata["deletionTimestamp"]) if metadata.get("deletionTimestamp") else None,
        exit_code=ended.get("exitCode"),
        finished=_time(ended["finishedAt"]) if ended.get("finishedAt") else None,
        result=result,
        last_words="" if result else words.strip(),
        reason=_reason(status, ended, disruption),
        disrupted=disruption is not None,
        problem=_problem(status),
    )


def address(pod: Json) -> PodAddress | None:
    """The address of a pod that runs and has rank 0."""
    metadata, status = pod["metadata"], pod.get("status", {})
    if _index(metadata) != 0 or status.get("phase") != PodPhase.RUNNING or not status.get("podIP"):
        return None
    if "running" not in (_trainer(status).get("state") or {}):
        return None
    return PodAddress(metadata["name"], status["podIP"])


def is_held_up(pod: Json) -> bool:
    """Whether a pod has a node but no container yet: only its events can say what it waits for."""
    status = pod.get("status", {})
    if status.get("phase") != PodPhase.PENDING or reported.condition(status, "PodScheduled") is None:
        return False
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return all(_waiting(container).get("reason", "") in _STARTING for container in containers)


def _index(metadata: Json) -> int:
    """The rank; of a Job that is not Indexed every pod has rank 0."""
    index = (metadata.get("labels") or {}).get(INDEX_LABEL, "")
    return int(index) if index.isdecimal() else 0


def _started(container: Json, created: datetime) -> datetime | None:
    """When a container began to run, in this try or one before; a kubelet that has lost it does not know any more."""
    for state in (container.get("lastState") or {}, container.get("state") or {}):
        ended = state.get("terminated") or {}
        if "running" in state or "exitCode" in ended:
            began = (state.get("running") or ended).get("startedAt")
            return _time(began) if began else created
    return None


def _phase(status: Json) -> PodPhase:
    return _PHASES.get(status.get("phase", "Pending"), PodPhase.UNKNOWN)


def _trainer(status: Json) -> Json:
    containers = status.get("containerStatuses") or ()
    return next((container for container in containers if container["name"] == CONTAINER), {})


def _terminated(container: Json) -> Json:
    return (container.get("state") or {}).get("terminated") or {}


def _waiting(container: Json) -> Json:
    return (container.get("state") or {}).get("waiting") or {}


def _result(words: str) -> Result | None:
    if not words.lstrip().startswith("{"):
        return None
    try:
        result = Result.model_validate_json(words)
    except (ValidationError, RecursionError):
        return None
    return result if _is_bounded(result.model_dump(mode="json")) else None


def _is_bounded(value: object) -> bool:
    """Whether a status can hold all that a pod says: whole numbers of 53 bits, figures that are finite."""
    if isinstance(value, dict):
        return all(_is_bounded(part) for part in value.values())
    if isinstance(value, list):
        return all(_is_bounded(part) for part in value)
    if isinstance(value, float):
        return is_figure(value)
    return not isinstance(value, int) or is_count(value)


def _reason(status: Json, ended: Json, disruption: Json | None) -> str | None:
    if ended.get("reason") and ended["reason"] not in _UNTOLD:
        return str(ended["reason"])
    if disruption and disruption.get("reason"):
        return str(disruption["reason"])
    return str(status["reason"]) if status.get("reason") else None


def _problem(status: Json) -> str | None:
    """Why a pod does not start, in Kubernetes' own words."""
    for told in status.get("conditions") or ():
        if told["type"] == "PodScheduled" and told["status"] == "False":
            return reported.words(told)
    for container in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        waiting = _waiting(container)
        if waiting.get("reason", "") not in _STARTING:
            return _last_cause(reported.words(waiting))
    return None


def _last_cause(words: str) -> str:
    """The kubelet tells of a failed pull and of waiting before the next in turns: both are the same problem."""
    before, pull, cause = words.partition("ErrImagePull: ")
    return pull + cause if "ImagePullBackOff" in before else words


def _time(moment: str) -> datetime:
    return datetime.fromisoformat(moment)
