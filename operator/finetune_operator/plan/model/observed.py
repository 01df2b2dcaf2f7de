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
    index: int = 0
    """Completion index of an Indexed Job: the node's rank."""
    attempt: int | None = None
    """The attempt that this pod was charged to (label), once it has ended."""
    deleting: bool = False
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
    def ended(self) -> bool:
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

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
    suspended: bool = False
    active: int = 0
    terminating: int = 0
    complete: bool = False
    failed: bool = False
    failure: str = ""
    """The Job's own words (condition Failed: reason and message)."""
    deleting: bool = False
    queued: bool = False
    """Whether it carries Kueue's queue label (names.LABEL_QUEUE), which Kueue may set by itself."""
    pods: tuple[PodState, ...] = ()

    @property
    def live_pods(self) -> tuple[PodState, ...]:
        return tuple(pod for pod in self.pods if not pod.ended)

    @property
    def is_quiet(self) -> bool:
        """Whether it has no pods that run, and gets none as it stands."""
        return (self.suspended or self.failed) and not (self.active or self.terminating or self.live_pods)


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
    progress: Progress | None = None
    """The newest report of the running stage, if it could be had."""
