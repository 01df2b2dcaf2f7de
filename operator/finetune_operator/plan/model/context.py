"""What a policy sees and what it answers.

A policy is a pure function from a `PolicyContext` to a `Decision`, or to None when it has nothing to say. The
planner asks the policies in order; the first answer counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Attempt, JobStatus, Phase, Reason
from finetune_operator.plan.model import names
from finetune_operator.plan.model.observed import Observed, StageJob
from finetune_operator.plan.model.plan import Action, JobEvent
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_trainer.contract import Published, Stage


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
    def name(self) -> str:
        return self.observed.job.metadata.name

    @property
    def stage_job(self) -> StageJob | None:
        """The batch/v1 Job of the current stage."""
        return self.observed.stages.get(self.stage)

    @property
    def queued_elsewhere(self) -> bool:
        """Whether Kueue decides when the stage's Job runs: what it suspends is not for us to resume."""
        job = self.stage_job
        labelled = self.stage is not Stage.PREPARE and names.LABEL_QUEUE in self.job.metadata.labels
        return labelled or (job is not None and job.queued)


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
    actions: tuple[Action, ...] = ()
    events: tuple[JobEvent, ...] = ()
    """Those that the change of status alone does not tell."""
    attempts: tuple[Attempt, ...] = ()
    """Attempts that begin or end."""
    charged: int = 0
    """Restarts to charge to maxRestarts."""
    published: Published | None = None
    requeue_after: float | None = None
    health: Health = Health.STEADY


Policy = Callable[[PolicyContext], Decision | None]
