"""The status of a FineTuneJob: everything a user can learn without asking the pods.

Bounded: lists keep the newest entries (`MAX_*`), messages are cut, so that the whole status stays
under 32 KiB.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from finetune_operator.api.base import StatusModel, Time
from finetune_trainer.contract import Artifact, CheckpointRef, PreparedData, Sample, Stage, TrainedModel

MAX_ATTEMPTS: Final = 16
MAX_CHECKPOINTS: Final = 8
MAX_MESSAGE: Final = 1024


class Phase(StrEnum):
    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    PUBLISHING = "Publishing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_terminal(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED)


class ConditionType(StrEnum):
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    PREPARED = "Prepared"
    TRAINED = "Trained"
    PUBLISHED = "Published"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Reason(StrEnum):
    """Why a condition is as it is, and why an event was sent. The one list of them."""

    ACCEPTED = "Accepted"
    TEMPLATE_NOT_FOUND = "TemplateNotFound"
    SECRET_NOT_FOUND = "SecretNotFound"
    SECRET_UNREADABLE = "SecretUnreadable"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    NO_OUTPUT = "NoOutput"
    INVALID_SPEC = "InvalidSpec"
    REJECTED = "Rejected"
    PREPARING = "Preparing"
    PREPARED = "Prepared"
    QUEUED = "Queued"
    TRAINING = "Training"
    TRAINED = "Trained"
    PUBLISHING = "Publishing"
    PUBLISHED = "Published"
    SUSPENDED = "Suspended"
    SUSPENDING = "Suspending"
    RESUMED = "Resumed"
    RESTARTING = "Restarting"
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CANNOT_RESUME = "CannotResume"
    POD_PROBLEM = "PodProblem"
    SPEC_CHANGED = "SpecChangeIgnored"
    SUCCEEDED = "Succeeded"
    INVALID_CONFIG = "InvalidConfig"
    INVALID_DATA = "InvalidData"
    NOT_FOUND = "NotFound"
    INTERNAL = "Internal"
    OUT_OF_MEMORY = "OutOfMemory"
    DIVERGED = "Diverged"
    CANNOT_WRITE = "CannotWrite"
    INTERRUPTED = "Interrupted"
    PEER_LOST = "PeerLost"
    KILLED = "Killed"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """metav1.Condition."""

    type: ConditionType
    status: ConditionStatus
    reason: str = Field(max_length=256)
    message: str = Field(default="", max_length=MAX_MESSAGE)
    last_transition_time: Time
    observed_generation: int | None = None


class ProgressStatus(StatusModel):
    step: int | None = None
    """Optimizer steps done."""
    total_steps: int | None = None
    """Optimizer steps in all."""
    percent: str | None = None
    """How much of the training is done, for example 45%."""
    epoch: float | None = None
    """Passes over the data, fractions included."""
    eta: str | None = None
    """Time left, for example 3m10s."""
    message: str = ""
    """What the running stage is doing."""
    updated_at: Time | None = None
    """When the trainer last reported."""
    stale: bool = False
    """Whether the trainer has not been heard of for a while."""


class Metrics(StatusModel):
    loss: str | None = None
    """Training loss, newest."""
    eval_loss: str | None = None
    """Loss on the held-out rows, newest."""
    base_eval_loss: str | None = None
    """Loss of the untouched model on the held-out rows."""
    learning_rate: str | None = None
    """Learning rate, newest."""
    grad_norm: str | None = None
    """Norm of the gradient before clipping, newest."""
    tokens_per_second: str | None = None
    """Tokens trained on in a second, all processes together."""
    peak_memory_bytes: int | None = None
    """Peak memory of a GPU (or of a process on CPU)."""


class Attempt(StatusModel):
    """One launch of the training pods."""

    number: int
    """Counts from 1."""
    start: Time
    """When its pods were asked for."""
    end: Time | None = None
    """When it ended."""
    reason: str | None = None
    """How it ended, for example peer-lost."""
    exit_code: int | None = None
    """Exit code of the pod that ended it."""
    message: str | None = Field(default=None, max_length=512)
    """What the pod said."""
    counted: bool = False
    """Whether the restart after it is charged to maxRestarts."""
    resumed_from_step: int | None = None
    """The checkpoint it began with."""


class Provenance(StatusModel):
    """What it takes to repeat the run."""

    config_hash: str | None = None
    """sha256 of the resolved spec."""
    template: str | None = None
    """The template used: kind/name@resourceVersion."""
    image: str | None = None
    """Image of the trainer container."""
    operator_version: str | None = None
    """Version of the operator that planned it."""


class JobStatus(StatusModel):
    phase: Phase = Phase.PENDING
    """Pending, Preparing, Queued, Training, Suspended, Publishing, Succeeded or Failed."""
    reason: str | None = None
    """Why, in one word."""
    message: str = Field(default="", max_length=MAX_MESSAGE)
    """Why, in a sentence, and what to do about it."""
    observed_generation: int | None = None
    """Generation of the spec that this status speaks of."""
    start_time: Time | None = None
    """When the job was accepted; from then on its spec is fixed."""
    completion_time: Time | None = None
    """When it succeeded or failed."""
    stage: Stage | None = None
    """The stage that is running, or that ended last."""
    conditions: tuple[Condition, ...] = ()
    """Ready, Reconciling and Stalled as kstatus reads them, and one for each milestone."""
    progress: ProgressStatus | None = None
    """How far it is."""
    metrics: Metrics | None = None
    """What the trainer measured last."""
    dataset: PreparedData | None = None
    """What the prepare stage found in the data."""
    trained: TrainedModel | None = None
    """What the train stage made."""
    trainable_parameters: int | None = None
    """Weights that training changes."""
    total_parameters: int | None = None
    """Weights of the model."""
    checkpoints: tuple[CheckpointRef, ...] = ()
    """The newest checkpoints."""
    artifacts: tuple[Artifact, ...] = ()
    """What was published, where, with its checksum."""
    samples: tuple[Sample, ...] = ()
    """The sample prompts with the answers before and after."""
    attempt: int | None = None
    """Number of the newest attempt."""
    attempts: tuple[Attempt, ...] = ()
    """The newest launches of the training pods."""
    restarts: int = 0
    """Restarts that were charged to maxRestarts."""
    provenance: Provenance | None = None
    """What it takes to repeat the run."""

    def condition(self, wanted: ConditionType) -> Condition | None:
        """The condition of this type, if it was ever set."""
        return next((c for c in self.conditions if c.type is wanted), None)
