"""Watching: nothing is to be done, and what the running stage's pods are up to is shown."""

from __future__ import annotations

from finetune_operator.api.status import Attempt, Phase, Reason
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.context import Decision, PolicyContext
from finetune_operator.plan.model.observed import PodPhase, PodState, StageJob
from finetune_operator.plan.model.text import count
from finetune_operator.plan.policies.failure_cause import last_cause
from finetune_operator.plan.policies.launch import PHASES
from finetune_operator.plan.status.progress import stale_after
from finetune_trainer.contract import Device, Stage, Topology


def watch(context: PolicyContext) -> Decision:
    """The last policy: it always has something to show."""
    job = context.stage_job
    phase, reason, message = PHASES[context.stage]
    if job is None:
        return Decision(phase, reason, message)
    attempt = context.attempt
    pods = job.pods if attempt is None else attempts.pods_of(job, attempt)
    if job.suspended and context.queued_elsewhere:
        return Decision(phase, reason, f"the Job {job.name} waits in its Kueue queue")
    troubled = next((pod for pod in pods if pod.problem and not pod.ended), None)
    if troubled is not None:
        return Decision(phase, Reason.POD_PROBLEM, f"the pod {troubled.name} does not start: {troubled.problem}")
    if attempt is not None:
        return _training(context, attempt, pods)
    return Decision(phase, reason, message + _retried(job), requeue_after=_stale_after(context))


def _training(context: PolicyContext, attempt: Attempt, pods: tuple[PodState, ...]) -> Decision:
    topology = context.spec.topology
    up = sum(pod.phase in (PodPhase.RUNNING, PodPhase.SUCCEEDED) and not pod.deleting for pod in pods)
    if up < topology.nodes:
        phase, reason, _ = PHASES[Stage.TRAIN]
        waiting = f"attempt {attempt.number} waits for its pods: {up} of {topology.nodes} run"
        return Decision(phase, reason, waiting)
    message = f"attempt {attempt.number} trains on {layout(topology)}"
    report = context.observed.progress
    known: tuple[Attempt, ...] = ()
    if report is not None and report.stage is Stage.TRAIN and report.resumed_from_step is not None:
        known = (attempt.model_copy(update={"resumed_from_step": report.resumed_from_step}),)
    return Decision(Phase.TRAINING, Reason.TRAINING, message, attempts=known, requeue_after=_stale_after(context))


def layout(topology: Topology) -> str:
    """`16 GPUs in 2 pods`, `1 CPU process in 1 pod`."""
    what = "GPU" if topology.device is Device.CUDA else "CPU process"
    plural = "es" if what.endswith("s") else "s"
    amount = topology.world_size
    return f"{amount} {what}{plural if amount > 1 else ''} in {count(topology.nodes, 'pod')}"


def _retried(job: StageJob) -> str:
    cause = last_cause(job.pods)
    return f"; a pod failed and is tried again: {cause.text}" if cause else ""


def _stale_after(context: PolicyContext) -> float | None:
    return stale_after(context.status, context.now, context.settings)
