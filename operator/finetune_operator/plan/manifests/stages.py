"""The objects that a job's stages are made of, as they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Attempt
from finetune_operator.plan.manifests.pods import meets_peers, passed_on, pod_template
from finetune_operator.plan.manifests.run_config import run_config
from finetune_operator.plan.model import names
from finetune_operator.plan.model.plan import Manifest
from finetune_operator.plan.model.resolved import ClaimToCreate, ResolvedSpec
from finetune_trainer.contract import RENDEZVOUS_PORT, ExitCode, PreparedData, RunConfig, Stage, TrainedModel

_RETRIES: Final = 3
"""Of prepare and publish, which the Job controller retries by itself."""
_UNLIMITED: Final = 1_000_000
"""Restarts of training are counted by the operator, so the Job controller must not give up first."""


def resolved_config_map(job: FineTuneJob, resolved: ResolvedSpec) -> Manifest:
    """The immutable ConfigMap that fixes the spec a job has started with."""
    metadata = _metadata(job, names.resolved_name(job.metadata.name))
    metadata["labels"][names.LABEL_RESOLVED] = "true"
    data = {names.RESOLVED_KEY: resolved.model_dump_json(by_alias=True, exclude_none=True)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "immutable": True}


def parse_resolved(data: Mapping[str, str]) -> ResolvedSpec:
    """The spec from the data of the ConfigMap that `resolved_config_map` made."""
    return ResolvedSpec.model_validate_json(data[names.RESOLVED_KEY])


def stage_manifests(  # noqa: PLR0913 - each stage takes what the ones before it found
    job: FineTuneJob,
    resolved: ResolvedSpec,
    stage: Stage,
    *,
    attempt: Attempt | None = None,
    prepared: PreparedData | None = None,
    trained: TrainedModel | None = None,
) -> tuple[Manifest, ...]:
    """The objects of a stage (of an attempt, for training) in the order to create them, its Job last."""
    config = run_config(job, resolved, stage, attempt, prepared, trained)
    manifests = []
    if stage is Stage.PREPARE and resolved.create_claim is not None and resolved.workspace_claim is not None:
        manifests.append(_claim(job, resolved.workspace_claim, resolved.create_claim))
    if meets_peers(config):
        manifests.append(_service(job))
    return (*manifests, _job(job, resolved, config))


def _metadata(job: FineTuneJob, name: str, stage: Stage | None = None) -> Manifest:
    return {
        "name": name,
        "namespace": job.metadata.namespace or "default",
        "labels": names.labels(job.metadata.name, stage),
        "ownerReferences": [
            {
                "apiVersion": job.api_version,
                "kind": job.kind,
                "name": job.metadata.name,
                "uid": job.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _claim(job: FineTuneJob, name: str, claim: ClaimToCreate) -> Manifest:
    """Without an owner when it holds the only copy of the result: deleting the job must leave that."""
    metadata = _metadata(job, name)
    if claim.outlives_job:
        del metadata["ownerReferences"]
        metadata["labels"][names.LABEL_JOB_UID] = job.metadata.uid
    spec: Manifest = {
        "accessModes": [claim.access_mode],
        "resources": {"requests": {"storage": claim.size}},
    }
    if claim.storage_class_name is not None:
        spec["storageClassName"] = claim.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def _service(job: FineTuneJob) -> Manifest:
    """Gives each training pod its DNS name, before it is ready: ranks meet while they start."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, names.service_name(job.metadata.name), Stage.TRAIN),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB: job.metadata.name, names.LABEL_STAGE: Stage.TRAIN.value},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"}],
        },
    }


def _job(job: FineTuneJob, resolved: ResolvedSpec, config: RunConfig) -> Manifest:
    """A Job that Kueue is to queue is created suspended; no other ever is, and `suspend` is never written again."""
    stage, template = config.stage, pod_template(job, resolved, config)
    metadata = _metadata(job, names.stage_name(job.metadata.name, stage), stage)
    own = metadata["labels"] | {names.LABEL_ATTEMPT: str(config.attempt)}
    metadata["labels"] = passed_on(job.metadata.labels, resolved) | own
    metadata["annotations"] = passed_on(job.metadata.annotations, resolved)
    nodes = config.topology.nodes if stage is Stage.TRAIN else 1
    spec: Manifest = {"parallelism": nodes, "completions": nodes}
    if stage is Stage.TRAIN:
        spec["completionMode"] = "Indexed"
    queue = names.queue_of(job.metadata.labels)
    if queue and stage is not Stage.PREPARE:
        metadata["labels"][names.LABEL_QUEUE] = queue
        spec["suspend"] = True
    spec |= {
        "backoffLimit": _UNLIMITED if stage is Stage.TRAIN else _RETRIES,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [_fail_at_once(), _ignore_disruption()]},
        "template": template,
    }
    kept = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": kept, "spec": spec}


def _fail_at_once() -> Manifest:
    final = sorted(code.value for code in ExitCode if code.is_final)
    codes = {"containerName": names.CONTAINER, "operator": "In", "values": final}
    return {"action": "FailJob", "onExitCodes": codes}


def _ignore_disruption() -> Manifest:
    """Eviction, preemption, a node drained or lost."""
    return {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
