"""Running: nothing is to be done, and what the running stage's pods are up to is shown."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from finetune_operator.api.status import Attempt, Phase, Reason
from finetune_operator.plan.model.context import Decision, PolicyContext
from finetune_operator.plan.model.names import CONTAINER
from finetune_operator.plan.model.observed import PodPhase, PodState, StageJob
from finetune_operator.plan.model.plan import soonest
from finetune_operator.plan.model.text import layout
from finetune_operator.plan.policies.dead_nodes import draining
from finetune_operator.plan.policies.failure_cause import last_cause
from finetune_operator.plan.policies.held import held, is_held
from finetune_operator.plan.policies.phases import PHASES
from finetune_operator.plan.status.progress import stale_after
from finetune_trainer.contract import Stage

_LINGERS = (
    "the container {container} of the pod {pod} has ended well, but another one still runs, and with it the pod. "
    "Make a sidecar an init container with restartPolicy: Always, or leave it out for these pods"
)
_LINGERS_AFTER: Final = timedelta(seconds=10)
"""The kubelet tells that a container has ended a moment before it tells so of its pod."""


def running(context: PolicyContext) -> Decision:
    """The last policy: it always has something to show."""
    job = context.stage_job
    phase, reason, message = PHASES[context.stage]
    if job is None:
        return Decision(phase, reason, message)
    if is_held(context):
        return held(context)
    drained = draining(job.pods, context.now)  # also those of the attempt before: their ranks wait for them
    if drained.message:
        return Decision(phase, Reason.POD_STUCK, drained.message)
    problem = _problem(context, job)
    if problem is not None:
        return Decision(phase, Reason.POD_PROBLEM, problem)
    recheck = soonest(_silent_after(context, job), drained.recheck_after, _lingers_soon(context))
    if context.attempt is not None:
        return _training(context, context.attempt, recheck)
    return Decision(phase, reason, message + _retried(job), requeue_after=recheck)


def _problem(context: PolicyContext, job: StageJob) -> str | None:
    """What keeps pods from starting, or from ending, in the words of whoever knows."""
    troubled = next((pod for pod in context.members if pod.problem and not pod.ended), None)
    if troubled is not None:
        started = f"; {_up(context)} of {context.topology.nodes} run" if context.topology.nodes > 1 else ""
        return f"the pod {troubled.name} does not start: {troubled.problem}{started}"
    if job.not_created:
        return f"a pod of the Job {job.name} is not created: {job.not_created}"
    lingering = next((pod for pod in _done(context) if context.now >= _lingers_from(context, pod)), None)
    return None if lingering is None else _LINGERS.format(pod=lingering.name, container=CONTAINER)


def _done(context: PolicyContext) -> tuple[PodState, ...]:
    """Pods that run although their trainer has ended well."""
    return tuple(pod for pod in context.members if pod.phase is PodPhase.RUNNING and pod.exit_code == 0)


def _lingers_from(context: PolicyContext, pod: PodState) -> datetime:
    return (pod.finished or context.now) + _LINGERS_AFTER


def _lingers_soon(context: PolicyContext) -> float | None:
    """Seconds until a pod that has only just done its part would be one that lingers."""
    return min(((_lingers_from(context, pod) - context.now).total_seconds() for pod in _done(context)), default=None)


def _training(context: PolicyContext, attempt: Attempt, recheck: float | None) -> Decision:
    topology = context.topology
    going = next((pod for pod in context.members if pod.deleting), None)
    if attempt.running_since is not None and going is not None:
        told = f"attempt {attempt.number}: the pod {going.name} is being stopped; the gang checkpoints and restarts"
        return Decision(Phase.TRAINING, Reason.TRAINING, told, requeue_after=recheck)
    if _up(context) < topology.nodes:
        waiting = f"attempt {attempt.number} waits for its pods: {_up(context)} of {topology.nodes} run"
        return Decision(PHASES[Stage.TRAIN][0], Reason.QUEUED, waiting, requeue_after=recheck)
    message = f"attempt {attempt.number} trains on {layout(topology)}"
    report = context.observed.progress
    known: tuple[Attempt, ...] = ()
    if report is not None and report.stage is Stage.TRAIN and report.resumed_from_step is not None:
        known = (attempt.model_copy(update={"resumed_from_step": report.resumed_from_step}),)
    return Decision(Phase.TRAINING, Reason.TRAINING, message, attempts=known, requeue_after=recheck)


def _silent_after(context: PolicyContext, job: StageJob) -> float | None:
    """Progress grows stale only while pods run: what waits for hours is not looked at each second."""
    runs = any(pod.phase is PodPhase.RUNNING for pod in job.pods)
    return stale_after(context.status, context.now, context.settings) if runs else None


def _up(context: PolicyContext) -> int:
    return sum(pod.is_up for pod in context.members)


def _retried(job: StageJob) -> str:
    cause = last_cause(job.pods)
    return f"; a pod failed and is tried again: {cause.text}" if cause else ""
