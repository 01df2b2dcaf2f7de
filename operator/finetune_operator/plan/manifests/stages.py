"""The objects that a job's stages are made of, as they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.plan.manifests.pods import meets_peers, pod_template
from finetune_operator.plan.manifests.run_config import run_config
from finetune_operator.plan.model import names
from finetune_operator.plan.model.plan import Manifest
from finetune_operator.plan.model.resolved import ClaimToCreate, ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_trainer.contract import RENDEZVOUS_PORT, RUN_CONFIG_FILE, ExitCode, PreparedData, Stage, TrainedModel

_RETRIES: Final = 3
"""Of prepare and publish, which the Job controller retries by itself."""
_UNLIMITED: Final = 1_000_000
"""Restarts of training are counted by the operator, so the Job controller must not give up first."""


def resolved_config_map(job: FineTuneJob, resolved: ResolvedSpec) -> Manifest:
    """The immutable ConfigMap that fixes the spec a job has started with."""
    data = {names.RESOLVED_KEY: resolved.model_dump_json(by_alias=True, exclude_none=True)}
    return _config_map(job, names.resolved_name(job.metadata.name), data) | {"immutable": True}


def parse_resolved(data: Mapping[str, str]) -> ResolvedSpec:
    """The spec from the data of the ConfigMap that `resolved_config_map` made."""
    return ResolvedSpec.model_validate_json(data[names.RESOLVED_KEY])


def stage_manifests(  # noqa: PLR0913, PLR0917 - each stage takes what the ones before it found
    job: FineTuneJob,
    resolved: ResolvedSpec,
    stage: Stage,
    settings: PlanSettings,
    prepared: PreparedData | None = None,
    trained: TrainedModel | None = None,
) -> tuple[Manifest, ...]:
    """The objects of a stage in the order to apply them, its Job last."""
    config = run_config(job, resolved, stage, prepared, trained)
    manifests = [
        _config_map(job, names.stage_name(job.metadata.name, stage), {RUN_CONFIG_FILE: config.to_json()}, stage)
    ]
    if stage is Stage.PREPARE and resolved.create_claim is not None:
        manifests.append(_claim(job, resolved.create_claim))
    if meets_peers(resolved, stage):
        manifests.append(_service(job))
    return (*manifests, _job(job, resolved, stage, settings))


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


def _config_map(job: FineTuneJob, name: str, data: dict[str, str], stage: Stage | None = None) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(job, name, stage), "data": data}


def _claim(job: FineTuneJob, claim: ClaimToCreate) -> Manifest:
    """Without an owner when it holds the only copy of the result: deleting the job must leave that."""
    metadata = _metadata(job, names.workspace_claim(job.metadata.name))
    if claim.outlives_job:
        del metadata["ownerReferences"]
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


def _job(job: FineTuneJob, resolved: ResolvedSpec, stage: Stage, settings: PlanSettings) -> Manifest:
    """`suspend` is left out on purpose: applying the manifest again must not revert what Kueue or a user set."""
    metadata = _metadata(job, names.stage_name(job.metadata.name, stage), stage)
    queue = job.metadata.labels.get(names.LABEL_QUEUE)
    if queue and stage is not Stage.PREPARE:
        metadata["labels"][names.LABEL_QUEUE] = queue
    nodes = resolved.topology.nodes if stage is Stage.TRAIN else 1
    spec: Manifest = {"parallelism": nodes, "completions": nodes}
    if stage is Stage.TRAIN:
        spec["completionMode"] = "Indexed"
    spec |= {
        "backoffLimit": _UNLIMITED if stage is Stage.TRAIN else _RETRIES,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [_fail_at_once(), _ignore_disruption()]},
        "template": pod_template(job, resolved, stage, settings),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _fail_at_once() -> Manifest:
    final = sorted(code.value for code in ExitCode if code.is_final)
    codes = {"containerName": names.CONTAINER, "operator": "In", "values": final}
    return {"action": "FailJob", "onExitCodes": codes}


def _ignore_disruption() -> Manifest:
    """Eviction, preemption, a node drained or lost."""
    return {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
