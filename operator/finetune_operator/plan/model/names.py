"""Every name, label and path that children of a job carry. Names hold within 63 characters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from finetune_operator.api.base import GROUP
from finetune_trainer.contract import Stage

MANAGED_BY: Final = "finetune-operator"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_JOB: Final = f"{GROUP}/job"
LABEL_STAGE: Final = f"{GROUP}/stage"
LABEL_ATTEMPT: Final = f"{GROUP}/attempt"
SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
"""Label selector of everything that the operator makes."""

FIELD_MANAGER: Final = "finetune-operator"
CONTAINER: Final = "trainer"
"""The container of every stage; podTemplate patches it by this name."""

LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"
"""Kueue's: passed on from the job to the children that take GPUs."""

LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"
LABEL_RESOLVED: Final = f"{GROUP}/resolved"
"""Marks the ConfigMaps with resolved specs, so that they can be listed."""
LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
"""The job that a claim which outlives it was made for."""
ANNOTATION_RUN_CONFIG: Final = f"{GROUP}/run-config"
"""On pods: the RunConfig as JSON, which a downward API volume shows to the trainer."""

RESOLVED_KEY: Final = "resolved.json"

CONFIG_DIR: Final = "/etc/finetune"
WORKSPACE_DIR: Final = "/workspace"
SCRATCH_DIR: Final = "/scratch"
SECRETS_DIR: Final = "/var/run/finetune/secrets"
VOLUMES_DIR: Final = "/volumes"
TERMINATION_LOG: Final = "/dev/termination-log"

_LONGEST: Final = 57
"""A pod of an Indexed Job is named after the Job with `-<index>` behind it (up to 5 digits), in 63."""


def _bounded(name: str, suffix: str) -> str:
    whole = f"{name}-{suffix}"
    if len(whole) <= _LONGEST:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST - len(suffix) - 10].rstrip('-')}-{digest}-{suffix}"


def queue_of(labels: Mapping[str, str]) -> str | None:
    """The Kueue queue in which a job with these labels is to wait."""
    return labels.get(LABEL_QUEUE)


def stage_name(job: str, stage: Stage) -> str:
    """Name of a stage's Job."""
    return _bounded(job, stage.value)


def service_name(job: str) -> str:
    """The headless Service that gives the training pods their DNS names."""
    return _bounded(job, "train")


def resolved_name(job: str) -> str:
    """The ConfigMap with the resolved spec."""
    return _bounded(job, "resolved")


def workspace_claim(job: str) -> str:
    """The PersistentVolumeClaim made for `workspace.size`, which goes with its job."""
    return _bounded(job, "workspace")


def lasting_claim(job: str, uid: str) -> str:
    """The one that holds the only copy of the result, and so outlives its job: a later job has another."""
    return _bounded(job, f"workspace-{uid[:8]}")


def workspace_folder(job: str, uid: str) -> str:
    """The job's own folder in a claim or bucket that outlives it: a job of the same name must not find its things."""
    return f"{job}-{uid[:8]}"


def volume_name(kind: str, name: str) -> str:
    """Name of a pod's volume for a Secret or a claim, whose own names may be longer and hold dots."""
    plain = f"{kind}-{name.replace('.', '-')}"
    if plain == f"{kind}-{name}" and len(plain) <= _LONGEST:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: _LONGEST - 9].rstrip('-')}-{digest}"


def master_address(job: str, namespace: str) -> str:
    """DNS name of the pod with rank 0."""
    return f"{stage_name(job, Stage.TRAIN)}-0.{service_name(job)}.{namespace}.svc"


def labels(job: str, stage: Stage | None = None) -> dict[str, str]:
    """Labels of a child (and, with a stage, of its pods)."""
    common = {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_NAME: "finetune-job",
        LABEL_INSTANCE: job,
        LABEL_PART_OF: MANAGED_BY,
        LABEL_JOB: job,
    }
    return common | ({LABEL_STAGE: stage.value, LABEL_COMPONENT: stage.value} if stage else {})
