"""Job manifests whose pods are small scripts, for tests of the machinery around them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from finetune_operator.local.cluster import LocalCluster
from finetune_operator.local.folders import JobFolder
from finetune_operator.local.podspec import Surroundings
from finetune_operator.local.secret_source import SecretsFromEnvironment
from finetune_operator.plan.model.names import ANNOTATION_RUN_CONFIG, LABEL_ATTEMPT, LABEL_JOB, LABEL_STAGE
from finetune_operator.plan.model.observed import PodState, StageJob
from finetune_operator.plan.model.plan import Create
from finetune_trainer.contract import ExitCode, Stage

Manifest = dict[str, Any]
PATIENCE = 20.0

LAST_WORD = """
import json, os, sys
def end(code, **more):
    result = {"stage": "train", "exitCode": code, "message": "done", **more}
    open(os.environ["FINETUNE_TERMINATION_LOG"], "w").write(json.dumps(result))
    sys.exit(code)
"""
"""Python that a pod's script may begin with: `end(code)` leaves a Result, as the trainer does."""


def job_manifest(script: str, *, pods: int = 1, **spec: Any) -> Manifest:
    """A train Job whose pods run this Python, with the volumes that the planner gives them."""
    mounts = {"config": "/etc/finetune", "workspace": "/workspace", "scratch": "/scratch"}
    env = {
        "FINETUNE_RUN_CONFIG": "/etc/finetune/run.json",
        "FINETUNE_WORKSPACE": "/workspace",
        "FINETUNE_SCRATCH": "/scratch",
        "FINETUNE_SECRETS": "/var/run/finetune/secrets",
        "FINETUNE_VOLUMES": "/volumes",
        "FINETUNE_TERMINATION_LOG": "/dev/termination-log",
        "FINETUNE_PROGRESS_PORT": "9402",
        "HOME": "/scratch",
        "MASTER_ADDR": "pig-train-0.pig-train.default.svc",
        "MASTER_PORT": "29500",
    }
    container = {
        "name": "trainer",
        "command": ["python", "-c", script],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    run_config = f"metadata.annotations['{ANNOTATION_RUN_CONFIG}']"
    volumes = [
        {"name": "config", "downwardAPI": {"items": [{"path": "run.json", "fieldRef": {"fieldPath": run_config}}]}},
        {"name": "workspace", "persistentVolumeClaim": {"claimName": "pig-workspace"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    labels = {LABEL_JOB: "pig", LABEL_STAGE: Stage.TRAIN.value, LABEL_ATTEMPT: "1"}
    metadata = {"labels": labels, "annotations": {ANNOTATION_RUN_CONFIG: "{}"}}
    final = [code.value for code in ExitCode if code.is_final]
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": "trainer", "operator": "In", "values": final}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    pod = {"terminationGracePeriodSeconds": 5, "containers": [container], "volumes": volumes}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "pig-train", "namespace": "default", "labels": labels},
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "podFailurePolicy": {"rules": rules},
            "template": {"metadata": metadata, "spec": pod},
            **spec,
        },
    }


def now() -> datetime:
    return datetime.now(UTC)


def surroundings(folder: JobFolder, **more: Any) -> Surroundings:
    return Surroundings(folder, lambda name: folder.root / "secrets" / name, dict(os.environ), **more)


def open_cluster(state: Path) -> LocalCluster:
    """The cluster of the job `pig` with its state below this folder."""
    folder = JobFolder.of(state, "default", "pig")
    folder.own_claim("pig-workspace").mkdir(parents=True, exist_ok=True)
    secrets = SecretsFromEnvironment(folder.root / "secrets")
    return LocalCluster(surroundings(folder), secrets, 2, now())


def start(cluster: LocalCluster, manifest: Manifest) -> None:
    cluster.apply(Create(manifest), now())
    cluster.tick(now())


def until(cluster: LocalCluster, holds: Callable[[StageJob], bool]) -> StageJob:
    """Lets the cluster go on until the Job is so."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        cluster.tick(now())
        job = cluster.stages()[Stage.TRAIN]
        if holds(job):
            return job
        sleep(0.02)
    raise AssertionError(f"it did not come to that in {PATIENCE:g} s: {cluster.stages()}")


def gone(cluster: LocalCluster) -> None:
    """Lets the cluster go on until no Job is left."""
    deadline = monotonic() + PATIENCE
    while cluster.stages():
        assert monotonic() < deadline, cluster.stages()
        cluster.tick(now())
        sleep(0.02)


def pod(job: StageJob) -> PodState:
    (only,) = job.pods
    return only
