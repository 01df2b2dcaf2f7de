"""Launching: a stage begins when the one before it has its result and its Job is not there.

Training that restarts begins here again, as its next attempt.
"""

from __future__ import annotations

from finetune_operator.api.status import Attempt, Phase, Reason
from finetune_operator.plan.manifests.stages import stage_manifests
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, Health, PolicyContext
from finetune_operator.plan.model.observed import PodPhase, StageJob
from finetune_operator.plan.model.plan import Action, Apply, DeleteJob, EventType, JobEvent
from finetune_operator.plan.model.text import cut
from finetune_trainer.contract import Stage

_WORDS = 200
_AGAIN_SOON = 2.0
PHASES = {
    Stage.PREPARE: (Phase.PREPARING, Reason.PREPARING, "checking the model and the data before any GPU is taken"),
    Stage.TRAIN: (Phase.QUEUED, Reason.QUEUED, "waiting for the training pods to run"),
    Stage.PUBLISH: (Phase.PUBLISHING, Reason.PUBLISHING, "reloading the result, trying it and storing it"),
}


def launch(context: PolicyContext) -> Decision | None:
    """The stage's objects, its Job last; for training, with a new attempt."""
    if context.stage_job is not None:
        return None
    phase, reason, message = PHASES[context.stage]
    manifests = stage_manifests(
        context.job,
        context.spec,
        context.stage,
        context.settings,
        prepared=context.status.dataset,
        trained=context.status.trained,
    )
    actions: tuple[Action, ...] = tuple(Apply(manifest) for manifest in manifests)
    begun = _new_attempt(context)
    if begun and begun[-1].number > 1:
        message = f"attempt {begun[-1].number} starts from {beginning(context)}"
    return Decision(phase, reason, message, actions, attempts=begun)


def beginning(context: PolicyContext) -> str:
    """Where the next attempt begins, as far as the operator knows."""
    spec, checkpoints = context.spec, context.status.checkpoints
    verified = [checkpoint.step for checkpoint in checkpoints if checkpoint.verified]
    if not verified or not (spec.workspace.persistent or spec.checkpoints.uri):
        return "the beginning"
    return f"the checkpoint of step {verified[-1]}"


def _new_attempt(context: PolicyContext) -> tuple[Attempt, ...]:
    """An attempt whose Job somebody else deleted has ended with it."""
    if context.stage is not Stage.TRAIN:
        return ()
    last = context.attempt
    lost = last is not None and last.end is None
    ended = (attempts.end(last, context.now, "interrupted"),) if last is not None and lost else ()
    return (*ended, attempts.begin(last, context.now))


def await_deletion(context: PolicyContext) -> Decision | None:
    """A Job that is being deleted has the name that its successor needs."""
    job = context.stage_job
    if job is None or not job.deleting:
        return None
    phase, reason, _ = PHASES[context.stage]
    return Decision(phase, reason, f"waiting for the Job {job.name} to be deleted", health=Health.CHANGING)


def recover_result(context: PolicyContext) -> Decision | None:
    """A Job that is complete, but whose result nobody has: the stage is made anew."""
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
    message = f"the stage {context.stage} is complete but its pod was removed before its result was read; made anew"
    told = JobEvent(EventType.WARNING, Reason.INTERRUPTED, message)
    ended: tuple[Attempt, ...] = ()
    if context.attempt is not None and context.attempt.end is None:
        ended = (attempts.end(context.attempt, context.now, "interrupted"),)
    return Decision(
        phase,
        reason,
        message,
        (DeleteJob(job.name),),
        events=(told,),
        attempts=ended,
        health=Health.CHANGING,
    )


def _speechless(context: PolicyContext, job: StageJob) -> Decision:
    """Made anew, the same image would end in the same way."""
    words = next((pod.last_words for pod in job.pods if pod.last_words), "")
    said = f"said `{cut(words, _WORDS)}`" if words else "said nothing"
    message = (
        f"the pod of the stage {context.stage} ended well, but instead of its result it {said}. "
        "Check that its image is a finetune trainer of the operator's version"
    )
    return Decision(Phase.FAILED, Reason.INTERNAL, message, health=Health.STUCK)
