"""What the operator and the trainer say to each other, and nothing else.

The operator hands a stage a `RunConfig` (JSON in an annotation of its pods), reads `Progress` from rank 0 while it
runs (HTTP, port `PROGRESS_PORT`) and a `Result` when it ends (the pod's termination message).
This module imports pydantic, the standard library and `exit_codes` only: it is the one module of the trainer that
the operator may import.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic.alias_generators import to_camel

from finetune_trainer.exit_codes import ExitCode as ExitCode  # noqa: PLC0414 - exit codes are part of the contract

CONTRACT_VERSION: Final = 1
"""Raised when a reader of the version before could no longer do what it is asked to. New fields do not raise it."""

PROGRESS_PORT: Final = 9402
"""Port on which the pod with rank 0 serves `/progress` (JSON) and `/metrics` (Prometheus text)."""

RENDEZVOUS_PORT: Final = 29500
"""Port on which rank 0 takes the other ranks in (torch.distributed's usual port)."""

MAX_RESULT_BYTES: Final = 4096
"""Kubernetes cuts a termination message at this size."""

RUN_CONFIG_FILE: Final = "run.json"


class Env(StrEnum):
    """Environment variables of a stage's process: where its files are. All hold absolute paths but two."""

    RUN_CONFIG = "FINETUNE_RUN_CONFIG"
    """The RunConfig file."""
    WORKSPACE = "FINETUNE_WORKSPACE"
    """The folder that hands data from stage to stage."""
    SCRATCH = "FINETUNE_SCRATCH"
    """A private folder of this pod: caches, the progress file, the generated launch configuration."""
    SECRETS = "FINETUNE_SECRETS"
    """A folder with one folder for each Secret, one file for each of its keys."""
    VOLUMES = "FINETUNE_VOLUMES"
    """A folder with one folder for each claim that a `pvc://` URI names."""
    TERMINATION_LOG = "FINETUNE_TERMINATION_LOG"
    """The file that takes the Result."""
    PROGRESS_PORT = "FINETUNE_PROGRESS_PORT"
    """The port to serve progress on; 0 serves nothing (the progress file is always written)."""
    NODE_RANK = "JOB_COMPLETION_INDEX"
    """This pod's number; Kubernetes sets it in the pods of an Indexed Job."""
    MASTER_ADDR = "MASTER_ADDR"
    """Host name of rank 0 (torch.distributed's own name for it)."""
    MASTER_PORT = "MASTER_PORT"
    """Port of the rendezvous on rank 0."""
    GRACE_SECONDS = "FINETUNE_GRACE_SECONDS"
    """Seconds between the wish to stop and the kill; a little less than the pod's own grace period. 25 when unset."""


PROGRESS_FILE: Final = "progress.json"
"""Name, in the scratch folder, of the file that holds the newest Progress (replaced atomically)."""


class Stage(StrEnum):
    PREPARE = "prepare"
    TRAIN = "train"
    PUBLISH = "publish"


class DataFormat(StrEnum):
    AUTO = "auto"
    TEXT = "text"
    PROMPT_COMPLETION = "prompt-completion"
    CHAT = "chat"


class SampleBy(StrEnum):
    """What of a .txt file is one document (named as `datasets` names it)."""

    PARAGRAPH = "paragraph"
    DOCUMENT = "document"
    LINE = "line"


class LossOn(StrEnum):
    COMPLETION = "completion"
    ALL = "all"


class Device(StrEnum):
    """What a process computes on, once the plan has decided."""

    CPU = "cpu"
    CUDA = "cuda"


class Contract(BaseModel):
    """Base of everything that crosses between operator and trainer: immutable, camelCase in JSON.

    Each side may be newer than the other, so a reader ignores what it does not know.
    """

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True, protected_namespaces=()
    )

    def to_json(self) -> str:
        """Compact JSON without the fields that are unset."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


class Versioned(Contract):
    """A whole document of the contract. One of another version is read as far as it goes."""

    version: int = CONTRACT_VERSION


Block = dict[str, JsonValue]
"""A free-form block: arguments of a library, by the library's own names."""


class JobRef(Contract):
    name: str
    namespace: str
    uid: str


class ModelSource(Contract):
    uri: str
    revision: str | None = None
    trust_remote_code: bool = False
    secret: str | None = None
    """Name of the folder below `Env.SECRETS` with the credentials, if any."""


class DatasetSource(Contract):
    uri: str
    revision: str | None = None
    format: DataFormat = DataFormat.AUTO
    columns: dict[str, str] = Field(default_factory=dict)
    """From the format's own column name (for example `prompt`) to the dataset's (for example `question`)."""
    config: str | None = None
    """Which configuration of a Hub dataset; needed where it has several."""
    split: str = "train"
    sample_by: SampleBy = SampleBy.PARAGRAPH
    secret: str | None = None


class DataPolicy(Contract):
    invalid_tolerance_percent: float = 5.0
    validation_fraction: float = 0.05


class TrainingConfig(Contract):
    method: str = "lora"
    """A key of `adaptations.METHODS`."""
    objective: str = "supervised"
    """A key of `objectives.OBJECTIVES`."""
    max_sequence_length: int = 1024
    """Tokens; a longer row is cut."""
    packing: bool = False
    loss_on: LossOn = LossOn.COMPLETION
    chat_template: str | None = None
    model_block: Annotated[Block, Field(alias="modelConfig")] = Field(default_factory=dict)
    quantization_config: Block = Field(default_factory=dict)
    peft_config: Block = Field(default_factory=dict)
    tokenizer_config: Block = Field(default_factory=dict)
    trainer_config: Block = Field(default_factory=dict)


class Topology(Contract):
    """How many processes train, and where."""

    nodes: int = Field(default=1, ge=1)
    processes_per_node: int = Field(default=1, ge=1)
    device: Device = Device.CPU

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node


class WorkspacePolicy(Contract):
    persistent: bool
    """Whether the workspace outlives a pod. When it does not, stages hand over through `handover_uri`."""
    handover_uri: str | None = None
    """Where the train stage leaves the model for publish when the workspace is not persistent."""
    handover_secret: str | None = None


class ResumeSource(Contract):
    """Checkpoints of another job."""

    uri: str
    """A folder that holds checkpoints, or one checkpoint."""
    secret: str | None = None


CHECKPOINT_SECONDS: Final = 900
"""What a fault may cost where the job does not say how often to save."""


class CheckpointPolicy(Contract):
    every_steps: int | None = None
    every_seconds: int | None = None
    """With neither, at the end of every epoch, and every `CHECKPOINT_SECONDS` within one."""
    keep: int = Field(default=2, ge=1)
    uri: str | None = None
    """Where every checkpoint is copied to, in object storage."""
    secret: str | None = None
    resume_from: ResumeSource | None = None
    """Where to begin when the job has no checkpoint of its own. Only read."""

    @property
    def longest_seconds(self) -> int | None:
        """Seconds after which a checkpoint is due; None where steps decide it."""
        return self.every_seconds or (CHECKPOINT_SECONDS if self.every_steps is None else None)


class OutputTarget(Contract):
    uri: str
    secret: str | None = None


class Percentiles(Contract):
    """Lengths of the rows, in tokens."""

    p50: int
    p90: int
    p99: int
    max: int


class PreparedData(Contract):
    """What the prepare stage found out. Numbers and digests only."""

    format: DataFormat
    rows: int
    """Valid rows, held-out ones included."""
    train_rows: int
    eval_rows: int
    invalid_rows: int = 0
    invalid_reasons: tuple[str, ...] = ()
    """The first few, each with its row number."""
    tokens: int = 0
    learned_tokens: int | None = None
    """Those of them that count for the loss."""
    unlearned_answers: int = 0
    """Answers in chats that are not learned, or without their reasoning: the chat template writes them otherwise."""
    truncated_rows: int = 0
    """Rows longer than maxSequenceLength, of which the end was cut."""
    cut_tokens: int = 0
    """Tokens of those rows that were cut, not counted in `tokens`."""
    lengths: Percentiles | None = None
    digest: str
    """sha256 over the tokenised rows in order; every later stage and every rank checks it."""
    source_digests: tuple[str, ...] = ()
    """sha256 of each dataset as it was fetched."""
    model_revision: str | None = None
    model_parameters: int | None = None


class CheckpointRef(Contract):
    step: int
    uri: str
    verified: bool
    bytes: int
    loss: float | None = None


class TrainedModel(Contract):
    """What the train stage made."""

    step: int
    total_steps: int
    epoch: float
    loss: float | None = None
    eval_loss: float | None = None
    base_eval_loss: float | None = None
    """Loss of the untouched model on the same held-out rows."""
    tokens_per_second: float | None = None
    trainable_parameters: int
    total_parameters: int
    peak_memory_bytes: int | None = None
    resumed_from_step: int | None = None
    seconds: float = 0.0
    """Wall time of this attempt's training loop."""
    checkpoints: tuple[CheckpointRef, ...] = ()
    digest: str
    """sha256 over the saved weights; publish refuses anything else."""


class Artifact(Contract):
    kind: str
    """`adapter`, `model` or `report`."""
    uri: str
    sha256: str
    bytes: int


class Sample(Contract):
    prompt: str
    before: str
    after: str


class Published(Contract):
    artifacts: tuple[Artifact, ...]
    samples: tuple[Sample, ...] = ()
    """Cut to what fits a termination message; the whole text is in the artifact's samples.json."""


class RunConfig(Versioned):
    """Everything a stage needs to know, apart from where its folders are mounted (see `Env`)."""

    job: JobRef
    attempt: int = Field(default=1, ge=1)
    """Number of the attempt at this job, for logs, and to tell the gang's pods from those of an attempt before."""
    stage: Stage
    model: ModelSource
    datasets: tuple[DatasetSource, ...] = Field(min_length=1)
    data: DataPolicy = DataPolicy()
    training: TrainingConfig = TrainingConfig()
    topology: Topology = Topology()
    workspace: WorkspacePolicy
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    samples: tuple[str, ...] = ()
    output: OutputTarget
    prepared: PreparedData | None = None
    trained: TrainedModel | None = None

    @model_validator(mode="after")
    def _has_what_its_stage_needs(self) -> Self:
        if self.stage is not Stage.PREPARE and self.prepared is None:
            raise ValueError(f"stage {self.stage} needs the prepare stage's result in `prepared`")
        if self.stage is Stage.PUBLISH and self.trained is None:
            raise ValueError("stage publish needs the train stage's result in `trained`")
        return self


class Progress(Versioned):
    """Where a running stage is. Everything but the stage, the time and the message is unset until known."""

    stage: Stage
    message: str = ""
    """What it is doing, for a person: `loading the model`, `training`, `uploading`."""
    updated_at: datetime
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    eta_seconds: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    base_eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    world_size: int | None = None
    resumed_from_step: int | None = None
    checkpoints: tuple[CheckpointRef, ...] = ()


def _known_exit_code(code: object) -> object:
    """A newer trainer may have codes of its own."""
    return ExitCode.of(code) if isinstance(code, int) else code


class Result(Versioned):
    """A stage's last word. At most `MAX_RESULT_BYTES` as JSON."""

    stage: Stage
    exit_code: Annotated[ExitCode, BeforeValidator(_known_exit_code)]
    message: str
    """What happened, for the person who can act on it."""
    field: str | None = None
    """Path in the job's spec of what is wrong, for example `spec.training.peftConfig.rank`."""
    advice: str | None = None
    """What to do about it."""
    step: int | None = None
    resumed_from_step: int | None = None
    checkpoints: tuple[CheckpointRef, ...] = ()
    """The newest checkpoints, of a training that did not reach its end: `trained` has them otherwise."""
    prepared: PreparedData | None = None
    trained: TrainedModel | None = None
    published: Published | None = None

    @property
    def exit_name(self) -> str:
        return self.exit_code.exit_name
