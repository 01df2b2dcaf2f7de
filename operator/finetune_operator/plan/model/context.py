"""What a policy sees and what it answers.

A policy is a pure function from a `PolicyContext` to a `Decision`, or to None when it has nothing to say. The
planner asks the policies in order; the first answer counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Attempt, JobStatus, Phase, Reason
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.observed import Observed, PodState, StageJob
from finetune_operator.plan.model.plan import Create, JobEvent, QueueJob, Removal
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_trainer.contract import Published, Stage, Topology


@dataclass(frozen=True)
class PolicyContext:
    """An accepted job that has not ended."""

    observed: Observed
    now: datetime
    settings: PlanSettings
    spec: ResolvedSpec
    status: JobStatus
    """The job's status with everything folded in that its pods have left behind."""
    stage: Stage
    """The first stage that has no result yet."""
    attempt: Attempt | None = None
    """The newest launch of the training pods, whether or not the status has heard of it; train stage only."""

    @property
    def job(self) -> FineTuneJob:
        return self.observed.job

    @property
    def stage_job(self) -> StageJob | None:
        """The batch/v1 Job of the current stage."""
        return self.observed.stages.get(self.stage)

    @property
    def topology(self) -> Topology:
        """Of the current attempt, or of the one to begin."""
        running = self.attempt.topology if self.attempt and not self.attempt.is_over else None
        return running or self.spec.topology

    def with_attempt(self, attempt: Attempt | None) -> PolicyContext:
        """The same, with the current attempt."""
        return replace(self, attempt=attempt)

    def with_status(self, status: JobStatus) -> PolicyContext:
        """The same, with the status."""
        return replace(self, status=status)

    @property
    def members(self) -> tuple[PodState, ...]:
        """The pods that belong to the current attempt; those of the stage's Job in the other stages."""
        job = self.stage_job
        if job is None:
            return ()
        return job.pods if self.attempt is None else attempts.pods_of(job, self.attempt, self.status.attempts)


class Health(Enum):
    """How the job stands towards what its spec asks for, as kstatus sees it."""

    STEADY = auto()
    """Everything is launched or queued: it goes on by itself."""
    CHANGING = auto()
    """The operator is taking pods down or putting them up."""
    STUCK = auto()
    """It does not go on until somebody does something."""


@dataclass(frozen=True)
class Decision:
    """What to do, and what to show meanwhile."""

    phase: Phase
    reason: Reason
    message: str
    actions: tuple[Create | QueueJob, ...] = ()
    after_status: tuple[Removal, ...] = ()
    """What takes pods down: done once the status says why."""
    events: tuple[JobEvent, ...] = ()
    """Those that the change of status alone does not tell."""
    attempts: tuple[Attempt, ...] = ()
    """Attempts that begin or end."""
    restarts: int | None = None
    """status.restarts from now on; unchanged without it."""
    published: Published | None = None
    requeue_after: float | None = None
    """Seconds after which it could be another decision although nothing happens: each policy knows its own."""
    health: Health = Health.STEADY
    told_later: bool = False
    """Whether the next look, which finds what this one creates, shows and tells the same."""


Policy = Callable[[PolicyContext], Decision | None]
