"""The status of a FineTuneJob: everything a user can learn without asking the pods.

Bounded: lists keep the newest entries (`MAX_*`), messages are cut, so that the whole status stays
under 32 KiB.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self

from pydantic import Field

from finetune_operator.api.base import StatusModel, Time
from finetune_trainer.contract import (
    Artifact,
    CheckpointRef,
    ExitCode,
    PreparedData,
    Sample,
    Stage,
    Topology,
    TrainedModel,
)

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
    """The spec was resolved, and is fixed from now on."""
    TEMPLATE_NOT_FOUND = "TemplateNotFound"
    """spec.template names no template of the namespace or the cluster; the job starts once there is one."""
    SECRET_NOT_FOUND = "SecretNotFound"
    """A secretRef names no Secret of the namespace; the job starts once there is one."""
    CLAIM_NOT_FOUND = "ClaimNotFound"
    """The spec names a PersistentVolumeClaim that is not there; the job starts once it is."""
    RESUME_NOT_FOUND = "ResumeNotFound"
    """spec.checkpoints.resumeFrom names a job that is not there, or has no verified checkpoint."""
    NO_OUTPUT = "NoOutput"
    """The result would have no home: neither output nor workspace is set."""
    INVALID_SPEC = "InvalidSpec"
    """The spec, with its template, cannot be resolved; the message names the field."""
    REJECTED = "Rejected"
    """The API server refuses an object that the job needs: quota, admission, rights. It is tried again."""
    NAME_TAKEN = "NameTaken"
    """An object that the job needs exists and belongs to somebody else; the message names both."""
    PREDECESSOR = "PredecessorGoing"
    """An object of an earlier job of this name, or one that is being deleted, has to go first."""
    FAULT = "OperatorFault"
    """The operator, or the API server, failed several times in a row at this job; it is tried again."""
    PREPARING = "Preparing"
    """The prepare stage checks model and data."""
    PREPARED = "Prepared"
    """The prepare stage has its result."""
    QUEUED = "Queued"
    """The training pods are asked for and do not all run yet."""
    HELD = "Held"
    """Somebody other than the operator holds the Job suspended: Kueue until it is admitted, or a person."""
    TRAINING = "Training"
    """All training pods run."""
    TRAINED = "Trained"
    """The train stage has its result."""
    PUBLISHING = "Publishing"
    """The publish stage reloads, tries and stores the result."""
    PUBLISHED = "Published"
    """The result is stored."""
    SUSPENDED = "Suspended"
    """spec.runPolicy.suspend is true, and no pod is left."""
    SUSPENDING = "Suspending"
    """spec.runPolicy.suspend is true; the pods checkpoint and go."""
    RESUMED = "Resumed"
    """The job goes on after a suspension."""
    RESTARTING = "Restarting"
    """An attempt has ended; its pods go before the next one starts."""
    BACKING_OFF = "BackingOff"
    """The next attempt waits, because those before it ended without a new checkpoint, or within a minute."""
    POD_STUCK = "PodStuckTerminating"
    """A pod has not gone although its grace period is over: its node is probably dead."""
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    """All restarts of spec.runPolicy.maxRestarts are used; raising it reopens the job."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """spec.runPolicy.activeDeadlineSeconds is over; raising it reopens the job."""
    REOPENED = "Reopened"
    """A failed job goes on, because what it ran out of was raised."""
    CANNOT_RESUME = "CannotResume"
    """Nothing outlives the pods, so that training starts over after losing them."""
    POD_PROBLEM = "PodProblem"
    """A pod does not start; the message has the scheduler's or the kubelet's words."""
    SPEC_CHANGED = "SpecChangeIgnored"
    """The spec or its template changed after the start; the job goes on with what it started with."""
    SUCCEEDED = "Succeeded"
    """The result is published."""
    INVALID_CONFIG = "InvalidConfig"
    """The trainer refuses the configuration (exit code 64)."""
    INVALID_DATA = "InvalidData"
    """More rows are unusable than tolerated (exit code 65)."""
    NOT_FOUND = "NotFound"
    """A model, dataset or checkpoint is missing or denied (exit code 66)."""
    INTERNAL = "Internal"
    """The trainer failed in a way that nobody foresaw (exit code 70)."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The accelerator's memory does not suffice (exit code 71)."""
    DIVERGED = "Diverged"
    """The loss became NaN or infinite (exit code 72)."""
    CANNOT_WRITE = "CannotWrite"
    """The workspace or the output is full or denied (exit code 73)."""
    INTERRUPTED = "Interrupted"
    """The cluster stopped the pods (exit code 75): the restart is free."""
    PEER_LOST = "PeerLost"
    """A rank went away, so that the others could not go on (exit code 76)."""
    KILLED = "Killed"
    """A container was killed: host memory, or its node (exit code 137)."""


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


class AttemptEnd(StrEnum):
    """How an attempt ended: with an exit of the trainer, or because somebody took it down. The one list of them.

    A status is read with any string, since a newer operator may know another one.
    """

    OK = "ok"
    """All ranks ended well."""
    INVALID_CONFIG = "invalid-config"
    """The trainer refused the configuration."""
    INVALID_DATA = "invalid-data"
    """More rows were unusable than tolerated."""
    NOT_FOUND = "not-found"
    """A model, dataset or checkpoint was missing or denied."""
    INTERNAL = "internal"
    """The trainer failed in a way that nobody foresaw."""
    OUT_OF_MEMORY = "out-of-memory"
    """The accelerator's memory did not suffice."""
    DIVERGED = "diverged"
    """The loss became NaN or infinite."""
    CANNOT_WRITE = "cannot-write"
    """The workspace or the output was full or denied."""
    INTERRUPTED = "interrupted"
    """The cluster, or somebody else, took pods or their Job away."""
    PEER_LOST = "peer-lost"
    """A rank went away, so that the others could not go on."""
    KILLED = "killed"
    """A container was killed: host memory, or its node."""
    PREEMPTED = "preempted"
    """Somebody other than the operator suspended the Job: Kueue, which brings it back by itself, or a person."""
    SUSPENDED = "suspended"
    """spec.runPolicy.suspend."""
    DEADLINE_EXCEEDED = "deadline-exceeded"
    """spec.runPolicy.activeDeadlineSeconds."""

    @classmethod
    def of(cls, code: ExitCode) -> Self:
        """By the trainer's exit."""
        return cls(code.exit_name)


class Attempt(StatusModel):
    """One launch of the training pods."""

    number: int
    """Counts from 1."""
    topology: Topology | None = None
    """On how many nodes and processes it runs, of which kind."""
    start: Time
    """When its pods were asked for."""
    running_since: Time | None = None
    """Since when all of its pods ran at the same time, by their nodes' clocks. Until then a failure is not charged."""
    end: Time | None = None
    """When it ended."""
    reason: str | None = None
    """How it ended, in one word, for example peer-lost (see the ends of attempts in the reference)."""
    exit_code: int | None = None
    """Exit code of the pod that ended it."""
    message: str | None = Field(default=None, max_length=512)
    """What the pod said."""
    counted: bool = False
    """Whether the restart after it is charged to maxRestarts."""
    tries: int = 0
    """Attempts in a row, this one included, that ended without a new verified checkpoint; the wait before the next
    one doubles with them. Two in a row that ran for less than a minute count as 2 whatever they saved."""
    resumed_from_step: int | None = None
    """The checkpoint it began with."""
    checkpoint_step: int | None = None
    """The newest verified checkpoint when it ended."""
    last_pod_created: Time | None = None
    """Creation time of its newest pod, by which a Job that goes on (under Kueue) tells the next attempt's pods."""
    gpu_seconds: int | None = None
    """GPUs times the seconds for which all of its pods ran."""

    @property
    def is_over(self) -> bool:
        return self.end is not None


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
    """Restarts charged to maxRestarts since the last new verified checkpoint."""
    gpu_seconds: int | None = None
    """GPU-seconds of all attempts that have ended."""
    provenance: Provenance | None = None
    """What it takes to repeat the run."""

    def condition(self, wanted: ConditionType) -> Condition | None:
        """The condition of this type, if it was ever set."""
        return next((c for c in self.conditions if c.type is wanted), None)
