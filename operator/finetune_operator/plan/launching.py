"""Launching: a stage begins when the one before it has its result and its Job is not there.

Training that restarts begins here again, as its next attempt.
"""

from __future__ import annotations

from finetune_operator.api.status import Attempt, Phase, Reason
from finetune_operator.plan import attempts
from finetune_operator.plan.manifests import stage_manifests
from finetune_operator.plan.observed import PodPhase, StageJob
from finetune_operator.plan.plan import Action, Apply, DeleteJob, EventType, JobEvent
from finetune_operator.plan.situation import Decision, Situation, Standing
from finetune_operator.plan.text import cut
from finetune_trainer.contract import Stage

_WORDS = 200
_AGAIN_SOON = 2.0
PHASES = {
    Stage.PREPARE: (Phase.PREPARING, Reason.PREPARING, "checking the model and the data before any GPU is taken"),
    Stage.TRAIN: (Phase.QUEUED, Reason.QUEUED, "waiting for the training pods to run"),
    Stage.PUBLISH: (Phase.PUBLISHING, Reason.PUBLISHING, "reloading the result, trying it and storing it"),
}


def launch(situation: Situation) -> Decision | None:
    """The stage's objects, its Job last; for training, with a new attempt."""
    if situation.stage_job is not None:
        return None
    phase, reason, message = PHASES[situation.stage]
    manifests = stage_manifests(
        situation.job,
        situation.spec,
        situation.stage,
        situation.settings,
        prepared=situation.status.dataset,
        trained=situation.status.trained,
    )
    actions: tuple[Action, ...] = tuple(Apply(manifest) for manifest in manifests)
    begun = _new_attempt(situation)
    if begun and begun[-1].number > 1:
        message = f"attempt {begun[-1].number} starts from {beginning(situation)}"
    return Decision(phase, reason, message, actions, attempts=begun)


def beginning(situation: Situation) -> str:
    """Where the next attempt begins, as far as the operator knows."""
    spec, checkpoints = situation.spec, situation.status.checkpoints
    verified = [checkpoint.step for checkpoint in checkpoints if checkpoint.verified]
    if not verified or not (spec.workspace.persistent or spec.checkpoints.uri):
        return "the beginning"
    return f"the checkpoint of step {verified[-1]}"


def _new_attempt(situation: Situation) -> tuple[Attempt, ...]:
    """An attempt whose Job somebody else deleted has ended with it."""
    if situation.stage is not Stage.TRAIN:
        return ()
    last = situation.attempt
    lost = last is not None and last.end is None
    ended = (attempts.end(last, situation.now, "interrupted"),) if last is not None and lost else ()
    return (*ended, attempts.begin(last, situation.now))


def await_deletion(situation: Situation) -> Decision | None:
    """A Job that is being deleted has the name that its successor needs."""
    job = situation.stage_job
    if job is None or not job.deleting:
        return None
    phase, reason, _ = PHASES[situation.stage]
    return Decision(phase, reason, f"waiting for the Job {job.name} to be deleted", standing=Standing.CHANGING)


def recover_result(situation: Situation) -> Decision | None:
    """A Job that is complete, but whose result nobody has: the stage is made anew."""
    job = situation.stage_job
    if job is None or not job.complete:
        return None
    phase, reason, _ = PHASES[situation.stage]
    first = [pod for pod in job.pods if pod.index == 0]
    if any(not pod.ended for pod in first):
        waiting = f"the Job {job.name} is complete, its pod's last word is on its way"
        return Decision(phase, reason, waiting, requeue_after=_AGAIN_SOON)
    if any(pod.phase is PodPhase.SUCCEEDED for pod in first):
        return _speechless(situation, job)
    message = f"the stage {situation.stage} is complete but its pod was removed before its result was read; made anew"
    told = JobEvent(EventType.WARNING, Reason.INTERRUPTED, message)
    ended: tuple[Attempt, ...] = ()
    if situation.attempt is not None and situation.attempt.end is None:
        ended = (attempts.end(situation.attempt, situation.now, "interrupted"),)
    return Decision(
        phase,
        reason,
        message,
        (DeleteJob(job.name),),
        events=(told,),
        attempts=ended,
        standing=Standing.CHANGING,
    )


def _speechless(situation: Situation, job: StageJob) -> Decision:
    """Made anew, the same image would end in the same way."""
    words = next((pod.last_words for pod in job.pods if pod.last_words), "")
    said = f"said `{cut(words, _WORDS)}`" if words else "said nothing"
    message = (
        f"the pod of the stage {situation.stage} ended well, but instead of its result it {said}. "
        "Check that its image is a finetune trainer of the operator's version"
    )
    return Decision(Phase.FAILED, Reason.INTERNAL, message, standing=Standing.STUCK)
