"""Launching: a stage begins when the one before it has its result and its Job is not there.

Training that restarts begins here again, as its next attempt.
"""

from __future__ import annotations

from finetune_operator.api.status import Attempt, AttemptEnd, Phase, Reason
from finetune_operator.plan.manifests.stages import stage_manifests
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.model.observed import PodPhase, StageJob
from finetune_operator.plan.model.plan import Create, EventType, JobEvent
from finetune_operator.plan.model.text import count, cut
from finetune_operator.plan.policies import gang
from finetune_operator.plan.policies.accounting import close_attempt
from finetune_operator.plan.policies.backoff import remaining_seconds
from finetune_operator.plan.policies.dead_nodes import draining
from finetune_operator.plan.policies.phases import PHASES
from finetune_operator.plan.policies.restart import beginning, interrupted
from finetune_operator.plan.policies.suspend import SUSPENDING
from finetune_trainer.contract import Stage

_WORDS = 200
_AGAIN_SOON = 1.0
_RECHECK_SECONDS = 30.0
_STRAYS_SECONDS = 5.0
"""Pods of a Job that is gone are not watched: they are nobody's."""


def launch(context: PolicyContext) -> Decision | None:
    """The stage's objects, its Job last; for training, with a new attempt."""
    if context.stage_job is not None:
        return None
    last = context.attempt
    if last is not None and not last.is_over:
        return _lost(context, last)
    if context.observed.strays:
        return _await_strays(context)
    wait = 0.0 if last is None else remaining_seconds(last, context.now)
    if last is not None and wait > 0:
        return _wait(last, wait)
    begun = attempts.begin(last, context.topology, context.now) if context.stage is Stage.TRAIN else None
    phase, reason, message = PHASES[context.stage]
    manifests = stage_manifests(
        context.job,
        context.spec,
        context.stage,
        attempt=begun,
        prepared=context.status.dataset,
        trained=context.status.trained,
    )
    if begun is not None and begun.number > 1:
        message = f"attempt {begun.number} starts from {beginning(context)}"
    started = () if begun is None else (begun,)
    return Decision(
        phase,
        reason,
        message,
        tuple(Create(manifest) for manifest in manifests),
        attempts=started,
        told_later=begun is None or begun.number == 1,  # where a later attempt begins is told by nobody else
    )


def _lost(context: PolicyContext, last: Attempt) -> Decision:
    """Somebody deleted the attempt's Job: it has ended with it."""
    closed = close_attempt(
        context, AttemptEnd.INTERRUPTED, message="the Job of its pods was deleted, not by the operator"
    )
    how = "its Job was deleted, not by the operator"
    return interrupted(last, closed, Reason.RESTARTING, how, requeue_after=_AGAIN_SOON)


def _await_strays(context: PolicyContext) -> Decision:
    """Two gangs would write to the same workspace, and two stages of a kind, too."""
    pods = context.observed.strays
    drained = draining(pods, context.now)
    message = drained.message or (
        f"waiting for the pod {pods[0].name} to go, whose Job was deleted, not by the operator; should it stay: "
        f"kubectl delete pod {pods[0].name}"
    )
    phase, reason, _ = PHASES[context.stage]
    reason = Reason.RESTARTING if context.attempt is not None else reason
    return Decision(
        phase,
        Reason.POD_STUCK if drained.message else reason,
        message,
        requeue_after=_STRAYS_SECONDS,
        health=Health.CHANGING,
    )


def _wait(last: Attempt, wait: float) -> Decision:
    message = (
        f"attempt {last.number + 1} waits: {count(last.tries, 'attempt')} in a row ended without a new checkpoint or "
        f"within a minute, the last one ({last.reason}) at {last.end:%H:%M:%S} UTC. {last.message or ''}"
    ).strip()
    return Decision(Phase.QUEUED, Reason.BACKING_OFF, message, requeue_after=wait, health=Health.CHANGING)


def take_back(context: PolicyContext) -> Decision | None:
    """Jobs of later stages go, since the result that they were started with is lost: the operator died before it wrote
    that result into the status, and somebody had deleted the Job that made it.
    """
    stages = list(Stage)
    later = stages[stages.index(context.stage) + 1 :]
    early = [job for stage, job in context.observed.stages.items() if stage in later]
    if not early:
        return None
    phase, reason, _ = PHASES[context.stage]
    drained = draining((pod for job in early for pod in job.pods), context.now)
    return Decision(
        phase,
        Reason.POD_STUCK if drained.message else reason,
        drained.message
        or f"the Job {early[0].name} goes: it was started with the result of the stage {context.stage}, which is lost, "
        "so that this stage has to run again first",
        after_status=tuple(removal for job in early for removal in gang.take_away(job)),
        requeue_after=drained.recheck_after or _RECHECK_SECONDS,
        health=Health.CHANGING,
    )


def await_deletion(context: PolicyContext) -> Decision | None:
    """A Job that is being deleted has the name that its successor needs."""
    job = context.stage_job
    if job is None or not job.deleting:
        return None
    phase, reason, _ = PHASES[context.stage]
    suspends = context.job.spec.run_policy.suspend
    drained = draining(job.pods, context.now)
    message = drained.message or (SUSPENDING if suspends else f"waiting for the Job {job.name} to be deleted")
    reason = Reason.SUSPENDING if suspends else Reason.RESTARTING if context.attempt is not None else reason
    return Decision(
        phase if not suspends or context.status.start_time is None else context.status.phase,
        Reason.POD_STUCK if drained.message else reason,
        message,
        requeue_after=drained.recheck_after or _RECHECK_SECONDS,
        health=Health.CHANGING,
    )


def recover_result(context: PolicyContext) -> Decision | None:
    """A Job that is complete, but whose result nobody has: the stage is done again."""
    job = context.stage_job
    if job is None or not job.complete:
        return None
    phase, reason, _ = PHASES[context.stage]
    first = [pod for pod in job.pods if pod.index == 0]
    if any(not pod.ended for pod in first):
        waiting = f"the Job {job.name} is complete, its pod's last word is on its way"
        return Decision(phase, reason, waiting, requeue_after=_AGAIN_SOON)
    if any(pod.phase is PodPhase.SUCCEEDED for pod in first):
        return _speechless(context, job)
    message = f"the stage {context.stage} is complete but its pod was removed before its result was read; it runs again"
    told = JobEvent(EventType.WARNING, Reason.INTERRUPTED, message)
    closed = close_attempt(context, AttemptEnd.INTERRUPTED, message=message)
    return Decision(
        phase,
        reason,
        message,
        after_status=gang.take_away(job),
        events=(told,),
        attempts=closed.attempts,
        restarts=closed.restarts,
        health=Health.CHANGING,
    )


def _speechless(context: PolicyContext, job: StageJob) -> Decision:
    """Launched again, the same image would end in the same way."""
    words = next((pod.last_words for pod in job.pods if pod.last_words), "")
    said = f"said `{cut(words, _WORDS)}`" if words else "said nothing"
    message = (
        f"the pod of the stage {context.stage} ended well, but instead of its result it {said}. "
        "Check that its image is a finetune trainer of the operator's version"
    )
    closed = close_attempt(context, AttemptEnd.INTERNAL, exit_code=0, message=message)
    return Decision(
        Phase.FAILED,
        Reason.INTERNAL,
        message,
        attempts=closed.attempts,
        restarts=closed.restarts,
        health=Health.STUCK,
    )
