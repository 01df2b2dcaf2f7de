"""The pod template of a stage: the container `trainer`, its volumes, and the job's podTemplate over them."""

from __future__ import annotations

from typing import Any, Final

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.plan.model import names
from finetune_operator.plan.model.plan import Manifest
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.merge import merge_pod_templates
from finetune_trainer.contract import PROGRESS_PORT, RENDEZVOUS_PORT, RUN_CONFIG_FILE, Device, Env, Stage

_SAVING_SECONDS: Final = 10
"""What the trainer leaves of the grace period for its last words."""


def pod_template(job: FineTuneJob, resolved: ResolvedSpec, stage: Stage, settings: PlanSettings) -> Manifest:
    """The PodTemplateSpec of a stage. Labels and restart policy are the operator's, whatever podTemplate says."""
    base: Manifest = {"metadata": {"labels": names.labels(job.metadata.name, stage)}}
    base["spec"] = _pod_spec(job, resolved, stage, settings)
    merged: Any = merge_pod_templates(base, resolved.pod_template)
    merged["metadata"]["labels"] |= base["metadata"]["labels"]
    merged["spec"]["restartPolicy"] = "Never"
    return dict(merged)


def trainer_image(resolved: ResolvedSpec, settings: PlanSettings) -> str:
    """The image of the trainer container, after podTemplate."""
    base: Any = {"spec": {"containers": [{"name": names.CONTAINER, "image": settings.trainer_image}]}}
    merged: Any = merge_pod_templates(base, resolved.pod_template)
    return str(merged["spec"]["containers"][0]["image"])


def lasting_uri(uri: str, job: FineTuneJob, resolved: ResolvedSpec) -> str:
    """Where a file of the workspace is for somebody outside the pod: in the claim, if there is one."""
    inside = f"file://{names.WORKSPACE_DIR}/"
    if resolved.workspace_claim is None or not uri.startswith(inside):
        return uri
    below = (_own_folder(job, resolved), uri.removeprefix(inside))
    return "/".join((f"pvc://{resolved.workspace_claim}", *filter(None, below)))


def _pod_spec(job: FineTuneJob, resolved: ResolvedSpec, stage: Stage, settings: PlanSettings) -> Manifest:
    spec: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.termination_grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.run_as_user,
            "runAsGroup": settings.run_as_user,
            "fsGroup": settings.run_as_user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, resolved, stage, settings)],
        "volumes": _volumes(job, resolved, stage),
    }
    if meets_peers(resolved, stage):
        spec["subdomain"] = names.service_name(job.metadata.name)
    return spec


def meets_peers(resolved: ResolvedSpec, stage: Stage) -> bool:
    """Whether the stage's pods have to find each other."""
    return stage is Stage.TRAIN and resolved.topology.nodes > 1


def _container(job: FineTuneJob, resolved: ResolvedSpec, stage: Stage, settings: PlanSettings) -> Manifest:
    container: Manifest = {
        "name": names.CONTAINER,
        "image": settings.trainer_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", "finetune_trainer", stage.value],
        "env": [{"name": name, "value": value} for name, value in _environment(job, resolved, stage, settings).items()],
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
    gpus = _gpus(resolved, stage)
    if gpus:
        container["resources"] = {"limits": {settings.gpu_resource: gpus}}
    return container


def _gpus(resolved: ResolvedSpec, stage: Stage) -> int:
    if resolved.topology.device is Device.CPU or stage is Stage.PREPARE:
        return 0
    return resolved.topology.processes_per_node if stage is Stage.TRAIN else 1


def _environment(job: FineTuneJob, resolved: ResolvedSpec, stage: Stage, settings: PlanSettings) -> dict[str, str]:
    variables: dict[str, str] = {
        Env.RUN_CONFIG.value: f"{names.CONFIG_DIR}/{RUN_CONFIG_FILE}",
        Env.WORKSPACE.value: names.WORKSPACE_DIR,
        Env.SCRATCH.value: names.SCRATCH_DIR,
        Env.SECRETS.value: names.SECRETS_DIR,
        Env.VOLUMES.value: names.VOLUMES_DIR,
        Env.TERMINATION_LOG.value: names.TERMINATION_LOG,
        Env.PROGRESS_PORT.value: str(PROGRESS_PORT),
        Env.GRACE_SECONDS.value: str(settings.termination_grace_seconds - _SAVING_SECONDS),
        "HOME": names.SCRATCH_DIR,
        "PYTHONUNBUFFERED": "1",
    }
    if stage is Stage.TRAIN:
        name, namespace = job.metadata.name, job.metadata.namespace or "default"
        alone = not meets_peers(resolved, stage)
        variables[Env.MASTER_ADDR.value] = "127.0.0.1" if alone else names.master_address(name, namespace)
        variables[Env.MASTER_PORT.value] = str(RENDEZVOUS_PORT)
    return variables


def _volumes(job: FineTuneJob, resolved: ResolvedSpec, stage: Stage) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": names.stage_name(job.metadata.name, stage)}},
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
    if not any(uri.startswith(f"pvc://{claim}/") or uri == f"pvc://{claim}" for uri in written):
        mount["readOnly"] = True
    return mount
