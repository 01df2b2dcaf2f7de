"""Why pods failed: of everything that went wrong at about the same time, the one thing that explains it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from finetune_operator.api.status import Attempt, Reason
from finetune_operator.plan.model.attempts import is_newer
from finetune_operator.plan.model.names import CONTAINER
from finetune_operator.plan.model.observed import PodPhase, PodState, StageJob
from finetune_operator.plan.model.text import cut, sentence
from finetune_trainer.contract import ExitCode

_LAST_WORDS: Final = 300
_SIGTERM: Final = 143
_FAR_FUTURE: Final = datetime.max.replace(tzinfo=UTC)
_EXIT_CODE: Final = re.compile(r"exit code (\d+)")
_OUT_OF_HOST_MEMORY: Final = "OOMKilled"


@dataclass(frozen=True)
class Cause:
    """What ended an attempt or a stage."""

    code: ExitCode
    text: str
    """What happened, where, and what to do: whole sentences without the last full stop."""
    pod_exit_code: int | None = None
    is_free: bool = False
    """Whether the cluster interrupted it, so that nobody is charged."""

    @property
    def reason(self) -> Reason:
        return Reason[self.code.name]


def failed_pods(pods: Iterable[PodState]) -> list[PodState]:
    """Those that ended in another way than well."""
    return [pod for pod in pods if pod.phase is PodPhase.FAILED or pod.outcome not in (None, ExitCode.OK)]


def cause_of(pods: Iterable[PodState]) -> Cause | None:
    """The cause among the pods that failed; None when none did. A pod that its cluster takes away, and whose node never
    says that it has ended, explains that its peers lost it.
    """
    known = list(pods)
    ranked = sorted(failed_pods(known), key=lambda pod: (_rank(pod), pod.finished or _FAR_FUTURE, pod.name))
    if not ranked:
        return None
    cause = _cause(ranked[0])
    lost = next((pod for pod in known if pod.disrupted and not pod.ended), None)
    if cause.code is ExitCode.PEER_LOST and lost is not None:
        return Cause(ExitCode.INTERRUPTED, _text(lost, ExitCode.INTERRUPTED), cause.pod_exit_code, is_free=True)
    return cause


def last_cause(pods: Iterable[PodState]) -> Cause | None:
    """How the newest of the failed pods ended: of one pod that was tried again and again."""
    failed = sorted(failed_pods(pods), key=lambda pod: (pod.finished or pod.created, pod.name))
    return _cause(failed[-1]) if failed else None


def cause_of_job(job: StageJob) -> Cause:
    """From the Job's own words, when no pod is left to tell."""
    told = _EXIT_CODE.search(job.failure)
    code = ExitCode.of(int(told[1])) if told else ExitCode.INTERNAL
    return Cause(code, sentence(f"the Job {job.name} failed: {job.failure or 'no reason given'}", code.advice))


def vanished(pods: Iterable[PodState], attempt: Attempt) -> Cause | None:
    """A rank whose pod is gone without a word, after all pods of the attempt ran: deleted by force, or by the node's
    own end. The Job controller replaces the pod at once, but its peers wait for the one that is gone.
    """
    if attempt.running_since is None or attempt.topology is None:
        return None
    there = {pod.index for pod in pods if not is_newer(pod, attempt)}
    lost = sorted(set(range(attempt.topology.nodes)) - there)
    if not lost:
        return None
    text = f"the pod of rank {lost[0]} vanished without a word: deleted by force, or with its node"
    return Cause(ExitCode.INTERRUPTED, text, is_free=True)


def _rank(pod: PodState) -> int:
    """Lower explains more. Ranks that lost their peer, or that were told to stop, only followed somebody."""
    code = pod.outcome
    if code is not None and code.is_final:
        return 0
    if pod.disrupted:
        return 1
    if code is ExitCode.INTERRUPTED or _was_told_to_stop(pod):
        return 3
    return 4 if code is ExitCode.PEER_LOST else 2


def _was_told_to_stop(pod: PodState) -> bool:
    killed = pod.outcome is ExitCode.KILLED and pod.reason != _OUT_OF_HOST_MEMORY
    return pod.exit_code == _SIGTERM or (killed and pod.deleting)


def _cause(pod: PodState) -> Cause:
    code = pod.outcome or ExitCode.KILLED
    free = not code.is_final and (pod.disrupted or code.is_free or _was_told_to_stop(pod))
    code = ExitCode.INTERRUPTED if free else code
    return Cause(code, _text(pod, code), pod.exit_code, is_free=free)


def _text(pod: PodState, code: ExitCode) -> str:
    result = pod.result
    if result is not None and result.exit_code is not ExitCode.OK:
        where = f"{result.field}: " if result.field and result.field not in result.message else ""
        return sentence(f"{where}{result.message}", result.advice or code.advice)
    if pod.reason == _OUT_OF_HOST_MEMORY:
        return sentence(
            f"the pod {pod.name} went over its memory limit ({_OUT_OF_HOST_MEMORY})",
            f"Raise resources.limits.memory of the container {CONTAINER} in spec.podTemplate",
        )
    if pod.disrupted or code is ExitCode.INTERRUPTED:
        return f"the cluster stopped the pod {pod.name} ({pod.reason or 'told to stop'})"
    ended = "was lost" if pod.exit_code is None else f"ended with exit code {pod.exit_code} ({code.exit_name})"
    words = f": {_tail(pod.last_words)}" if pod.last_words else ""
    return sentence(f"the pod {pod.name} {ended}{words}", code.advice)


def _tail(words: str) -> str:
    """The end of a log says more than its beginning."""
    return cut(" ".join(words.split())[-_LAST_WORDS:], _LAST_WORDS)
