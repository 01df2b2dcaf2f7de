"""A job and its template become one ResolvedSpec."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from pydantic import JsonValue

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.api.spec import DataSpec, JobSpec, TrainingDevice, TrainingSpec
from finetune_operator.api.status import Reason
from finetune_operator.plan.model import names
from finetune_operator.plan.model.claim_uris import claim_of
from finetune_operator.plan.model.problems import SpecProblem
from finetune_operator.plan.model.resolved import PodDefaults, ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.model.text import sentence
from finetune_operator.plan.resolve.merge import MergeError, check_pod_template, compose_pod_templates, deep_merge
from finetune_operator.plan.resolve.resume_source import resume_source
from finetune_operator.plan.resolve.sources import claim_fields, secret_fields, uris
from finetune_operator.plan.resolve.storage import storage
from finetune_operator.plan.resolve.topology import topology
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import (
    CheckpointPolicy,
    DataPolicy,
    DatasetSource,
    ModelSource,
    ResumeSource,
    Topology,
    TrainingConfig,
)
from finetune_trainer.errors import InvalidConfig

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_LARGEST_TRAINING: Final = 160 * 1024
"""Bytes of JSON. The annotations of a pod may take 256 KiB in all, sample prompts included."""
_NOT_OF_THE_CONFIG: Final = {"config_hash", "template", "pods"}


def resolve(
    job: FineTuneJob, template: Template, settings: PlanSettings, resume_from: FineTuneJob | None = None
) -> ResolvedSpec:
    """The job's spec with its template and every default filled in. Raises `SpecProblem`.

    `resume_from` is the job that spec.checkpoints.resumeFrom names, if it is there.
    """
    spec = job.spec
    training = _training(spec.training, template.spec.training)
    layout = topology(spec, training.device or TrainingDevice.AUTO)
    kept = storage(job, layout.nodes, settings)
    resumed = resume_source(job, resume_from)
    learns = _training_config(training)
    _check_combination(learns, layout)
    resolved = ResolvedSpec(
        template=_template_name(template),
        model=_model(spec),
        datasets=tuple(_datasets(spec)),
        data=_data(spec.data, template.spec.data),
        training=learns,
        topology=layout,
        checkpoints=_checkpoints(job, resumed),
        output=kept.output,
        workspace=kept.workspace,
        workspace_claim=kept.claim,
        create_claim=kept.create,
        pods=PodDefaults.of(settings),
        pod_template=_pod_template(job, template, settings),
        claims=_mounted_claims(job, kept.output.uri, resumed),
        secrets=_mounted_secrets(job, resumed),
    )
    return resolved.model_copy(update={"config_hash": _hash(resolved, job)})


def secret_names(job: FineTuneJob) -> frozenset[str]:
    """Every Secret that the job names."""
    return frozenset(secret_fields(job))


def claim_names(job: FineTuneJob) -> frozenset[str]:
    """Every PersistentVolumeClaim that the job expects to exist."""
    created = {_created_claim(job)}
    return frozenset(claim_fields(job)) - created


def _training(job: TrainingSpec, template: TrainingSpec | None) -> TrainingSpec:
    return TrainingSpec.model_validate(deep_merge(_block(template), _block(job)))


def _training_config(training: TrainingSpec) -> TrainingConfig:
    """Raises `SpecProblem` when it would not fit into an annotation of the pods."""
    sizes = {name: len(json.dumps(value).encode()) for name, value in _block(training).items()}
    if sum(sizes.values()) > _LARGEST_TRAINING:
        largest = max(sizes, key=lambda name: sizes[name])
        raise SpecProblem(
            Reason.INVALID_SPEC,
            f"spec.training.{largest}: spec.training takes {sum(sizes.values()) // 1024} KiB with its template, and at "
            f"most {_LARGEST_TRAINING // 1024} KiB fit into a pod; shorten this, its largest part",
        )
    return TrainingConfig.model_validate({k: v for k, v in _block(training).items() if k != "device"})


def _check_combination(training: TrainingConfig, topology: Topology) -> None:
    """Raises `SpecProblem` for a method, objective and blocks that do not go together."""
    try:
        Choice.of(training, topology)
    except InvalidConfig as problem:
        message = sentence(f"{problem.field}: {problem.message}", problem.advice or "")
        raise SpecProblem(Reason.INVALID_SPEC, message) from problem


def _data(job: DataSpec, template: DataSpec | None) -> DataPolicy:
    return DataPolicy.model_validate(deep_merge(_block(template), _block(job)))


def _block(model: TrainingSpec | DataSpec | None) -> dict[str, JsonValue]:
    return {} if model is None else model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _model(spec: JobSpec) -> ModelSource:
    model = spec.model
    return ModelSource(
        uri=model.uri,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        secret=model.secret_ref.name if model.secret_ref else None,
    )


def _datasets(spec: JobSpec) -> list[DatasetSource]:
    return [
        DatasetSource(
            uri=dataset.uri,
            revision=dataset.revision,
            format=dataset.format,
            columns=dataset.columns,
            config=dataset.config,
            split=dataset.split,
            sample_by=dataset.sample_by,
            secret=dataset.secret_ref.name if dataset.secret_ref else None,
        )
        for dataset in spec.datasets
    ]


def _checkpoints(job: FineTuneJob, resumed: ResumeSource | None) -> CheckpointPolicy:
    """In a folder of the job's own: jobs that share a bucket must not rotate each other's checkpoints away."""
    spec, every = job.spec.checkpoints, job.spec.checkpoints.every
    folder = names.workspace_folder(job.metadata.name, job.metadata.uid)
    return CheckpointPolicy(
        every_steps=every if isinstance(every, int) else None,
        every_seconds=_seconds(every) if isinstance(every, str) else None,
        keep=spec.keep,
        uri=f"{spec.uri.rstrip('/')}/{folder}" if spec.uri else None,
        secret=spec.secret_ref.name if spec.secret_ref else None,
        resume_from=resumed,
    )


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def _pod_template(job: FineTuneJob, template: Template, settings: PlanSettings) -> dict[str, JsonValue]:
    """The cluster's, the template's and the job's podTemplate, each over the one before."""
    layers = {
        "the operator's setting podTemplate": settings.pod_template,
        f"{template.kind} {template.metadata.name}: spec.podTemplate": template.spec.pod_template or {},
        "spec.podTemplate": job.spec.pod_template or {},
    }
    composed: dict[str, JsonValue] = {}
    for whose, layer in layers.items():
        composed = _over(composed, whose, layer)
    _over(composed, "the operator's setting enforcedPodTemplate", settings.enforced_pod_template)  # merged with the pod
    return composed


def _over(base: dict[str, JsonValue], whose: str, layer: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        check_pod_template(layer)
        return compose_pod_templates(base, layer)
    except MergeError as problem:
        raise SpecProblem(Reason.INVALID_SPEC, f"{whose}{problem}") from problem


def _mounted_claims(job: FineTuneJob, output: str, resumed: ResumeSource | None) -> tuple[str, ...]:
    """Claims that a pvc:// URI names, the output's own (which may be the workspace) included."""
    named = {uri.claim for uri in uris(job.spec)} | {claim_of(output), claim_of(resumed.uri) if resumed else None}
    return tuple(sorted(claim for claim in named if claim))


def _mounted_secrets(job: FineTuneJob, resumed: ResumeSource | None) -> tuple[str, ...]:
    borrowed = {resumed.secret} if resumed is not None and resumed.secret is not None else set()
    return tuple(sorted(secret_names(job) | borrowed))


def _created_claim(job: FineTuneJob) -> str | None:
    """The name of the claim that goes with the job; a pvc:// URI may name it before it is there."""
    workspace = job.spec.workspace
    return names.workspace_claim(job.metadata.name) if workspace and not workspace.claim else None


def _template_name(template: Template) -> str:
    version = template.metadata.resource_version
    return f"{template.kind}/{template.metadata.name}" + (f"@{version}" if version else "")


def _hash(resolved: ResolvedSpec, job: FineTuneJob) -> str:
    """The same for every job that is configured alike: which job it is does not enter."""
    name, uid = job.metadata.name, job.metadata.uid
    content = resolved.model_dump_json(exclude_none=True, exclude=_NOT_OF_THE_CONFIG)
    for own in (names.workspace_folder(name, uid), names.lasting_claim(name, uid), names.workspace_claim(name), uid):
        content = content.replace(own, "")
    canonical = json.dumps(json.loads(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
