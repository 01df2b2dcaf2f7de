"""What a reconcile knows: everything the planner may look at, gathered before it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_trainer.contract import ExitCode, Progress, Result, Stage


class PodPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class PodState:
    """One pod of a stage."""

    name: str
    phase: PodPhase
    created: datetime
    """As the API server wrote it (whole seconds); a gang's attempts on one Job are told apart by it."""
    index: int = 0
    """Completion index of an Indexed Job: the node's rank."""
    node: str | None = None
    """The node that it was scheduled to."""
    started: datetime | None = None
    """When its trainer container began to run, by its node's clock; None before."""
    gone_by: datetime | None = None
    """When it should be gone: its deletionTimestamp, which has the grace period in it. None unless being deleted."""
    exit_code: int | None = None
    """Of the trainer container, once it has ended."""
    finished: datetime | None = None
    result: Result | None = None
    """Parsed termination message."""
    last_words: str = ""
    """The termination message as it stands, when it is no Result (end of the log)."""
    reason: str | None = None
    """Kubernetes' own reason: OOMKilled, Evicted, DeletionByTaintManager, PreemptionByScheduler, ..."""
    disrupted: bool = False
    """Whether it carries the condition DisruptionTarget."""
    problem: str | None = None
    """Why it does not start, in Kubernetes' own words: unschedulable, image pull, volume, quota."""

    @property
    def ran(self) -> bool:
        """Whether its trainer container runs or has run."""
        return self.started is not None

    @property
    def deleting(self) -> bool:
        return self.gone_by is not None

    @property
    def ended(self) -> bool:
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def is_up(self) -> bool:
        """Whether it takes part in its gang, or has done its part."""
        return self.phase in (PodPhase.RUNNING, PodPhase.SUCCEEDED) and not self.deleting

    @property
    def outcome(self) -> ExitCode | None:
        """How the trainer ended, if it did: its own Result first, else its exit code."""
        if self.result is not None:
            return self.result.exit_code
        if self.disrupted and self.ended:
            return ExitCode.INTERRUPTED
        return None if self.exit_code is None else ExitCode.of(self.exit_code)


@dataclass(frozen=True)
class StageJob:
    """The batch/v1 Job of a stage, with its pods."""

    name: str
    uid: str
    created: datetime
    attempt: int = 1
    """The attempt that it was made for (label). Under Kueue it goes on through later ones."""
    completions: int = 1
    suspended: bool = False
    """The operator never suspends a Job: this is Kueue, or somebody else."""
    created_suspended: bool = False
    """Whether it is suspended since its creation: by an admission webhook, where the operator did not ask for it."""
    active: int = 0
    """Pods that its controller counts as running: a moment behind those that have ended."""
    complete: bool = False
    failed: bool = False
    failure: str = ""
    """The Job's own words (condition Failed: reason and message)."""
    deleting: bool = False
    ending: bool = False
    """Whether it has the deadline that `EndJob` gives it."""
    not_created: str | None = None
    """Why Kubernetes refuses to create a pod of it, in the Job's own words: quota, admission."""
    queued: bool = False
    """Whether it carries Kueue's queue label (names.LABEL_QUEUE), which Kueue may have set by itself."""
    pods: tuple[PodState, ...] = ()

    @property
    def has_ended(self) -> bool:
        return self.complete or self.failed


class Presence(StrEnum):
    PRESENT = "present"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Observed:
    """A job and its surroundings at one moment."""

    job: FineTuneJob
    template: Template | None = None
    secrets: Mapping[str, Presence] = field(default_factory=dict)
    """Every Secret that the spec names."""
    claims: Mapping[str, Presence] = field(default_factory=dict)
    """Every claim that the spec names (workspace.claim and pvc:// URIs)."""
    resolved: ResolvedSpec | None = None
    """The spec as it was fixed when the job started (ConfigMap <job>-resolved)."""
    stages: Mapping[Stage, StageJob] = field(default_factory=dict)
    strays: tuple[PodState, ...] = ()
    """Pods of the job's stages that have not ended and whose Job is gone: somebody deleted it in the background
    (kubectl's default), or without its pods. Nothing is started beside them."""
    resume_from: FineTuneJob | None = None
    """The job that spec.checkpoints.resumeFrom names, if it is there; asked for until the spec is resolved."""
    progress: Progress | None = None
    """The newest report of the running stage, if it could be had."""
