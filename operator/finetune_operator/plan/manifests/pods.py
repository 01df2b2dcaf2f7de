"""The pod template of a stage: the container `trainer`, its volumes, and the job's podTemplate over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.plan.manifests.requests import default_requests, gpus_of_pod
from finetune_operator.plan.model import names
from finetune_operator.plan.model.claim_uris import claim_of, claim_uri
from finetune_operator.plan.model.plan import Manifest
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.resolve.merge import merge_pod_templates
from finetune_trainer.contract import PROGRESS_PORT, RENDEZVOUS_PORT, RUN_CONFIG_FILE, Env, RunConfig, Stage

_RUN_CONFIG: Final = {
    "path": RUN_CONFIG_FILE,
    "fieldRef": {"fieldPath": f"metadata.annotations['{names.ANNOTATION_RUN_CONFIG}']"},
}
_SAVING_SECONDS: Final = 10
"""What the trainer leaves of the grace period for its last words."""


def pod_template(job: FineTuneJob, resolved: ResolvedSpec, config: RunConfig) -> Manifest:
    """The PodTemplateSpec of a stage: ours, the job's podTemplate over it, the administrator's enforced part over both.

    Labels, RunConfig and restart policy are the operator's, whatever podTemplate says.
    """
    metadata: Manifest = {
        "labels": passed_on(job.metadata.labels, resolved) | _own_labels(job, config),
        "annotations": passed_on(job.metadata.annotations, resolved) | {names.ANNOTATION_RUN_CONFIG: config.to_json()},
    }
    base: Manifest = {"metadata": metadata, "spec": _pod_spec(job, resolved, config)}
    merged: Any = merge_pod_templates(base, resolved.pod_template)
    merged = merge_pod_templates(merged, resolved.pods.enforced_pod_template)
    kept = merged.get("metadata") or {}
    own = {"labels": _own_labels(job, config), "annotations": {names.ANNOTATION_RUN_CONFIG: config.to_json()}}
    merged["metadata"] = kept | {part: {**(kept.get(part) or {}), **values} for part, values in own.items()}
    merged["spec"]["restartPolicy"] = "Never"
    _ask_for_defaults(merged["spec"]["containers"], default_requests(resolved.pods, config))
    _tell_grace(merged["spec"])
    return dict(merged)


def _tell_grace(spec: Manifest) -> None:
    """The trainer is told the grace period that its pod has in the end, whoever set it."""
    grace = spec.get("terminationGracePeriodSeconds")
    if not isinstance(grace, int):
        return  # taken away, or no number: the API server says what it makes of it
    trainer = next(container for container in spec["containers"] if container["name"] == names.CONTAINER)
    told = {"name": Env.GRACE_SECONDS.value, "value": str(max(1, grace - _SAVING_SECONDS))}
    trainer["env"] = [told if entry.get("name") == told["name"] else entry for entry in trainer.get("env") or ()]


def _ask_for_defaults(containers: list[Manifest], defaults: Mapping[str, str]) -> None:
    """Requests that podTemplate says nothing of. A limit without a request is a request, too."""
    trainer = next(container for container in containers if container["name"] == names.CONTAINER)
    resources = trainer.get("resources") or {}
    missing = {name: amount for name, amount in defaults.items() if name not in (resources.get("limits") or {})}
    if missing:
        trainer["resources"] = {**resources, "requests": {**missing, **(resources.get("requests") or {})}}


def _own_labels(job: FineTuneJob, config: RunConfig) -> dict[str, str]:
    return {**names.labels(job.metadata.name, config.stage), names.LABEL_ATTEMPT: str(config.attempt)}


def passed_on(values: Mapping[str, str], resolved: ResolvedSpec) -> dict[str, str]:
    """Those of the job's own labels or annotations that its children carry, too."""
    prefixes = resolved.pods.propagated_prefixes
    return {key: value for key, value in values.items() if key.startswith(prefixes)} if prefixes else {}


def trainer_image(resolved: ResolvedSpec) -> str:
    """The image of the trainer container, after podTemplate."""
    base: Any = {"spec": {"containers": [{"name": names.CONTAINER, "image": resolved.pods.image}]}}
    merged: Any = merge_pod_templates(base, resolved.pod_template)
    merged = merge_pod_templates(merged, resolved.pods.enforced_pod_template)
    return str(merged["spec"]["containers"][0]["image"])


def lasting_uri(uri: str, job: FineTuneJob, resolved: ResolvedSpec) -> str:
    """Where a file of the workspace is for somebody outside the pod: in the claim, if there is one."""
    inside = f"file://{names.WORKSPACE_DIR}/"
    if resolved.workspace_claim is None or not uri.startswith(inside):
        return uri
    return claim_uri(resolved.workspace_claim, _own_folder(job, resolved), uri.removeprefix(inside))


def _pod_spec(job: FineTuneJob, resolved: ResolvedSpec, config: RunConfig) -> Manifest:
    user = resolved.pods.run_as_user
    spec: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": resolved.pods.grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, resolved, config)],
        "volumes": _volumes(resolved),
    }
    if meets_peers(config):
        spec["subdomain"] = names.service_name(job.metadata.name)
    return spec


def meets_peers(config: RunConfig) -> bool:
    """Whether the stage's pods have to find each other."""
    return config.stage is Stage.TRAIN and config.topology.nodes > 1


def _container(job: FineTuneJob, resolved: ResolvedSpec, config: RunConfig) -> Manifest:
    environment = _environment(job, resolved, config)
    container: Manifest = {
        "name": names.CONTAINER,
        "image": resolved.pods.image,
        "imagePullPolicy": resolved.pods.image_pull_policy,
        "command": ["python", "-m", "finetune_trainer", config.stage.value],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": "progress", "containerPort": PROGRESS_PORT, "protocol": "TCP"}],
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(job, resolved),
    }
    gpus = gpus_of_pod(config)
    if gpus:
        container["resources"] = {"limits": {resolved.pods.gpu_resource: gpus}}
    return container


def _environment(job: FineTuneJob, resolved: ResolvedSpec, config: RunConfig) -> dict[str, str]:
    variables: dict[str, str] = {
        Env.RUN_CONFIG.value: f"{names.CONFIG_DIR}/{RUN_CONFIG_FILE}",
        Env.WORKSPACE.value: names.WORKSPACE_DIR,
        Env.SCRATCH.value: names.SCRATCH_DIR,
        Env.SECRETS.value: names.SECRETS_DIR,
        Env.VOLUMES.value: names.VOLUMES_DIR,
        Env.TERMINATION_LOG.value: names.TERMINATION_LOG,
        Env.PROGRESS_PORT.value: str(PROGRESS_PORT),
        Env.GRACE_SECONDS.value: str(resolved.pods.grace_seconds - _SAVING_SECONDS),
        "HOME": names.SCRATCH_DIR,
        "PYTHONUNBUFFERED": "1",
    }
    if config.stage is Stage.TRAIN:
        name, namespace = job.metadata.name, job.metadata.namespace or "default"
        address = names.master_address(name, namespace) if meets_peers(config) else "127.0.0.1"
        variables |= {Env.MASTER_ADDR.value: address, Env.MASTER_PORT.value: str(RENDEZVOUS_PORT)}
    return variables


def _volumes(resolved: ResolvedSpec) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "config", "downwardAPI": {"items": [_RUN_CONFIG]}},
        {"name": "workspace", **_claim_or_empty(resolved.workspace_claim)},
        {"name": "scratch", "emptyDir": {}},
        {"name": "dshm", "emptyDir": {"medium": "Memory"}},
    ]
    volumes += [
        {"name": names.volume_name("secret", secret), "secret": {"secretName": secret, "defaultMode": 0o440}}
        for secret in resolved.secrets
    ]
    volumes += [
        {"name": names.volume_name("claim", claim), **_claim_or_empty(claim)}
        for claim in resolved.claims
        if claim != resolved.workspace_claim
    ]
    return volumes


def _claim_or_empty(claim: str | None) -> Manifest:
    return {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}


def _mounts(job: FineTuneJob, resolved: ResolvedSpec) -> list[Manifest]:
    workspace: Manifest = {"name": "workspace", "mountPath": names.WORKSPACE_DIR}
    if own := _own_folder(job, resolved):
        workspace["subPath"] = own
    mounts: list[Manifest] = [
        {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True},
        workspace,
        {"name": "scratch", "mountPath": names.SCRATCH_DIR},
        {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108 - the root file system is read-only
        {"name": "dshm", "mountPath": "/dev/shm"},  # noqa: S108 - shared memory of the data loaders and NCCL
    ]
    mounts += [
        {
            "name": names.volume_name("secret", secret),
            "mountPath": f"{names.SECRETS_DIR}/{secret}",
            "readOnly": True,
        }
        for secret in resolved.secrets
    ]
    return mounts + [_claim_mount(resolved, claim) for claim in resolved.claims]


def _own_folder(job: FineTuneJob, resolved: ResolvedSpec) -> str | None:
    """The job's folder in a workspace claim that outlives it; None where the job has the whole workspace."""
    outlives = resolved.workspace_claim if resolved.create_claim is None else resolved.create_claim.outlives_job
    return names.workspace_folder(job.metadata.name, job.metadata.uid) if outlives else None


def _claim_mount(resolved: ResolvedSpec, claim: str) -> Manifest:
    is_workspace = claim == resolved.workspace_claim
    mount: Manifest = {
        "name": "workspace" if is_workspace else names.volume_name("claim", claim),
        "mountPath": f"{names.VOLUMES_DIR}/{claim}",
    }
    written = [resolved.output.uri, resolved.checkpoints.uri or ""]
    if claim not in map(claim_of, written):
        mount["readOnly"] = True
    return mount
