"""The spec of a FineTuneJob and of its templates: the one source of the CRDs' schemas.

A docstring below a field is its description in the CRD, so it is written for the person who runs
`kubectl explain ftj.spec`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from finetune_operator.api.base import ApiModel
from finetune_operator.api.rules import (
    EVERY,
    GPUS,
    HELD_OUT,
    JOB_NAME,
    LONGEST_NAME,
    LONGEST_OBJECT_NAME,
    RESUME_FROM,
    STORAGE_CLASS,
    WORKSPACE,
    Rule,
    object_name_rule,
    uri_rules,
)
from finetune_trainer.adaptations import METHODS
from finetune_trainer.contract import DataFormat, LossOn, SampleBy
from finetune_trainer.objectives import OBJECTIVES

QUANTITY: Final = r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
READ_SCHEMES: Final = ("hf", "s3", "pvc", "https", "pkg", "file")
WRITE_SCHEMES: Final = ("s3", "pvc", "file")
LONGEST_URI: Final = 1024
TEN_YEARS: Final = 315_360_000
"""In seconds: a moment that far ahead can still be written as a date."""
FREE_FORM: Final[dict[str, Any]] = {"x-kubernetes-preserve-unknown-fields": True}


def _text(longest: int, *rules: Rule) -> tuple[Any, ...]:
    """What annotates a text of at most so many characters that keeps the rules."""
    extra: dict[str, Any] = {"x-kubernetes-validations": [rule.as_schema() for rule in rules]}
    checks = (AfterValidator(rule.check) for rule in rules)
    return *checks, Field(min_length=1, max_length=longest, json_schema_extra=extra)


def _one_of(names: Iterable[str]) -> tuple[Any, ...]:
    """What annotates a text that is one of these names."""
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"use one of {', '.join(known)}")
        return name

    return AfterValidator(check), Field(json_schema_extra={"enum": list(known)})


def _keeping(*rules: Rule) -> ConfigDict:
    """What an object that keeps these rules has as model_config."""
    extra: dict[str, Any] = {"x-kubernetes-validations": [rule.as_schema() for rule in rules]}
    return ConfigDict(json_schema_extra=extra)


ModelUri = Annotated[str, *_text(LONGEST_URI, *uri_rules(READ_SCHEMES, "hf://meta-llama/Llama-3.1-8B-Instruct"))]
DatasetUri = Annotated[str, *_text(LONGEST_URI, *uri_rules(READ_SCHEMES, "s3://team/support.jsonl"))]
WriteUri = Annotated[str, *_text(LONGEST_URI, *uri_rules(WRITE_SCHEMES, "s3://team/models/support-bot"))]
CheckpointUri = Annotated[str, *_text(LONGEST_URI, *uri_rules(WRITE_SCHEMES, "s3://team/checkpoints"))]
SecretName = Annotated[str, *_text(LONGEST_OBJECT_NAME, object_name_rule("Secret", "s3-credentials"))]
TemplateName = Annotated[str, *_text(LONGEST_OBJECT_NAME, object_name_rule("template", "lora"))]
ClaimName = Annotated[str, *_text(LONGEST_OBJECT_NAME, object_name_rule("PersistentVolumeClaim", "team-data"))]
StorageClassName = Annotated[str, *_text(LONGEST_OBJECT_NAME, object_name_rule("StorageClass", "fast-ssd"))]
JobName = Annotated[str, *_text(LONGEST_NAME, JOB_NAME)]
Method = Annotated[str, *_one_of(METHODS)]
Objective = Annotated[str, *_one_of(OBJECTIVES)]
Block = Annotated[dict[str, JsonValue], Field(json_schema_extra=FREE_FORM)]


class SecretRef(ApiModel):
    name: SecretName
    """Name of a Secret in the job's namespace. Keys that are read: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION, HF_TOKEN."""


class ModelSpec(ApiModel):
    uri: ModelUri
    """Where the model is: hf://owner/name, s3://bucket/folder, pvc://claim/folder, https://host/file.gguf,
    pkg://module/file (shipped in a Python package) or file:///folder (mounted through podTemplate)."""
    revision: str | None = Field(default=None, min_length=1, max_length=128)
    """A branch, tag or commit of a Hugging Face repository. Pin a commit for a run that can be repeated."""
    secret_ref: SecretRef | None = None
    """Credentials for a private model."""
    trust_remote_code: bool = False
    """Whether Python code that the model's repository ships may run in the pods."""


class DatasetSpec(ApiModel):
    uri: DatasetUri
    """Where the data is: a .jsonl, .json, .csv, .parquet or .txt file, or hf://owner/name."""
    revision: str | None = Field(default=None, min_length=1, max_length=128)
    """A branch, tag or commit of a Hugging Face dataset."""
    format: DataFormat = DataFormat.AUTO
    """What a row holds: text (`text`), prompt-completion (`prompt`, `completion`), chat (`messages`);
    auto finds out from the columns."""
    columns: dict[str, Annotated[str, Field(min_length=1, max_length=256)]] = Field(default_factory=dict, max_length=16)
    """Renames columns: from the format's own name (prompt) to the name in the data (question)."""
    config: str | None = Field(default=None, min_length=1, max_length=128)
    """Which configuration of a Hugging Face dataset to train on, where it has several."""
    split: str = Field(default="train", min_length=1, max_length=128)
    """Which split of a Hugging Face dataset to train on."""
    sample_by: SampleBy = SampleBy.PARAGRAPH
    """What of a .txt file is one document: a `paragraph` (empty lines divide them), the whole file (`document`),
    or a `line`."""
    secret_ref: SecretRef | None = None
    """Credentials for private data."""


class TemplateKind(StrEnum):
    CLUSTER = "ClusterFineTuneTemplate"
    NAMESPACED = "FineTuneTemplate"


class TemplateRef(ApiModel):
    name: TemplateName
    """Name of the template, for example lora, qlora or full."""
    kind: TemplateKind | None = None
    """Where to look; without it, a FineTuneTemplate in the job's namespace first, then a
    ClusterFineTuneTemplate."""


class TrainingDevice(StrEnum):
    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


class TrainingSpec(ApiModel):
    method: Method | None = None
    """lora and qlora train a small adapter (qlora over a 4-bit model), full trains every weight.
    Default lora."""
    objective: Objective | None = None
    """supervised learns the completions of prompts or chats, self-supervised learns plain text. Default
    supervised."""
    device: TrainingDevice | None = None
    """auto asks for `gpus` NVIDIA GPUs (none when gpus is 0); cpu trains on CPU, and `gpus` then counts
    processes. Default auto."""
    max_sequence_length: int | None = Field(default=None, ge=8, le=1048576)
    """Longer rows are cut at this many tokens. Default 1024."""
    packing: bool | None = None
    """Whether short rows share a sequence (attention stays within each row). Default false."""
    loss_on: LossOn | None = None
    """completion: only the answers count; all: prompts count too. Default completion."""
    chat_template: str | None = Field(default=None, max_length=65536)
    """A Jinja chat template in place of the model's own."""
    model_block: Annotated[dict[str, JsonValue] | None, Field(json_schema_extra=FREE_FORM, alias="modelConfig")] = None
    """Arguments of transformers' from_pretrained, by their own names (attn_implementation)."""
    quantization_config: Block | None = None
    """Arguments of transformers.BitsAndBytesConfig (method qlora), by their own names
    (bnb_4bit_quant_type)."""
    peft_config: Block | None = None
    """Arguments of peft.LoraConfig, by their own names (r, lora_alpha, target_modules)."""
    tokenizer_config: Block | None = None
    """Arguments of the tokenizer's from_pretrained, by their own names (padding_side)."""
    trainer_config: Block | None = None
    """Arguments of trl.SFTConfig, by their own names (learning_rate, num_train_epochs,
    per_device_train_batch_size)."""


class DataSpec(ApiModel):
    invalid_tolerance_percent: float | None = Field(default=None, ge=0, le=100)
    """The job fails before any GPU is taken when more rows than this are unusable. Default 5."""
    validation_fraction: Annotated[
        float | None,
        AfterValidator(HELD_OUT.check),
        Field(json_schema_extra={"x-kubernetes-validations": [HELD_OUT.as_schema()]}),
    ] = None
    """Part of the rows that is held out to measure evalLoss; 0 trains on all of them. Default 0.05."""


class SamplesSpec(ApiModel):
    prompts: tuple[Annotated[str, Field(min_length=1, max_length=2048)], ...] = Field(default=(), max_length=16)
    """Answered by the model before and after training; both answers are shown in status."""


class OutputSpec(ApiModel):
    uri: WriteUri
    """Where the finished adapter or model goes: s3://bucket/folder, pvc://claim/folder or file:///folder."""
    secret_ref: SecretRef | None = None
    """Credentials for the bucket."""


class ResumeFrom(ApiModel):
    """Where training begins: at a checkpoint that another job has made."""

    model_config = _keeping(RESUME_FROM)

    job: JobName | None = None
    """A FineTuneJob of this namespace: training begins at its newest checkpoint that verifies."""
    uri: CheckpointUri | None = None
    """A checkpoint's folder, or a folder of checkpoints whose newest one that verifies is taken:
    s3://bucket/folder, pvc://claim/folder or file:///folder."""
    secret_ref: SecretRef | None = None
    """Credentials for the bucket that holds the checkpoints."""

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        RESUME_FROM.check(self)
        return self


class CheckpointsSpec(ApiModel):
    every: Annotated[
        int | str | None,
        AfterValidator(EVERY.check),
        Field(json_schema_extra={"x-kubernetes-int-or-string": True, "x-kubernetes-validations": [EVERY.as_schema()]}),
    ] = None
    """A number of steps (500) or a time (15m) between checkpoints. Default: the end of every
    epoch, and every 15 minutes within one."""
    keep: int = Field(default=2, ge=1, le=100)
    """How many of the newest checkpoints to keep."""
    uri: WriteUri | None = None
    """Where every checkpoint is copied to, so that a job without a persistent workspace can resume; the job keeps to
    a folder of its own in it."""
    secret_ref: SecretRef | None = None
    """Credentials for the bucket."""
    resume_from: ResumeFrom | None = None
    """Begins at another job's checkpoint instead of at the model's own weights."""


class WorkspaceSpec(ApiModel):
    model_config = _keeping(WORKSPACE, STORAGE_CLASS)

    claim: ClaimName | None = None
    """An existing PersistentVolumeClaim of the job's namespace; the job keeps to a folder of its own in it."""
    size: str | None = Field(default=None, pattern=QUANTITY, max_length=32)
    """Creates a PersistentVolumeClaim of this size, for example 50Gi."""
    storage_class_name: StorageClassName | None = None
    """Storage class of the claim to create; the cluster's default without it."""

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        for rule in (WORKSPACE, STORAGE_CLASS):
            rule.check(self)
        return self


class RunPolicy(ApiModel):
    suspend: bool = False
    """true checkpoints and takes the pods down, giving the GPUs back; false again resumes."""
    max_restarts: int = Field(default=3, ge=0, le=1000)
    """How often training restarts after faults without a new checkpoint in between. Interruptions by the cluster
    (eviction, preemption, drain) are not counted. Raising it reopens a job that failed by it."""
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=TEN_YEARS)
    """The job fails when it has not finished this many seconds after it started, time in queues and in suspension
    included. Raising it reopens a job that failed by it."""


class TemplateSpec(ApiModel):
    """What a template may set; a job's own values win (deep merge, lists replace)."""

    description: str | None = Field(default=None, max_length=1024)
    """What the template is for, shown by `kubectl get cftt`."""
    training: TrainingSpec | None = None
    """Defaults of spec.training."""
    data: DataSpec | None = None
    """Defaults of spec.data."""
    pod_template: Block | None = None
    """A partial PodTemplateSpec that is merged into every pod, under the job's own."""


class JobSpec(ApiModel):
    """What to fine-tune, on what, how, and where the result goes."""

    model: ModelSpec
    """The model to start from."""
    template: TemplateRef
    """The template that this job fills in."""
    datasets: tuple[DatasetSpec, ...] = Field(min_length=1, max_length=1)
    """The data to train on: one dataset."""
    gpus: int = Field(ge=0, le=4096)
    """GPUs in total; 0 trains on CPU with one process."""
    gpus_per_node: int | None = Field(default=None, ge=1, le=64)
    """GPUs of one pod; gpus must be a multiple of it. Default: all of them up to 8."""
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    """How to train; every value not given comes from the template."""
    data: DataSpec = Field(default_factory=DataSpec)
    """How strictly rows are checked and how many are held out."""
    samples: SamplesSpec = Field(default_factory=SamplesSpec)
    """Prompts whose answers before and after training are shown."""
    output: OutputSpec | None = None
    """Where the result goes; without it, it stays in the workspace claim, which then outlives the job."""
    checkpoints: CheckpointsSpec = Field(default_factory=CheckpointsSpec)
    """How often to save, and how much to keep."""
    workspace: WorkspaceSpec | None = None
    """A volume that outlives pods, so that training can resume on another node. Several nodes need a
    ReadWriteMany claim."""
    run_policy: RunPolicy = Field(default_factory=RunPolicy)
    """Suspension, restarts and deadlines."""
    pod_template: Block | None = None
    """A partial PodTemplateSpec merged into every pod (nodeSelector, tolerations, volumes, image of the
    container named trainer, ...)."""

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        GPUS.check(self)
        return self
