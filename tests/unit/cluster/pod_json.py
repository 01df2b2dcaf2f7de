"""Pods as kubelets report them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def pod(phase: str, *containers: Json, conditions: tuple[Json, ...] = (), **status: Any) -> Json:
    return {
        "metadata": {
            "name": "bot-train-1-x7k2p",
            "namespace": "team",
            "uid": "uid-pod",
            "resourceVersion": "9",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "batch.kubernetes.io/job-completion-index": "1",
                "finetune-operator.io/job": "bot",
                "finetune-operator.io/stage": "train",
            },
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "bot-train", "uid": "uid-bot-train"}],
        },
        "spec": {"nodeName": "gpu-1", "containers": [{"name": "trainer", "image": "finetune-trainer:0.1.0"}]},
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": list(containers), **status},
    }


def container(name: str = "trainer", **state: Json) -> Json:
    return {"name": name, "ready": False, "restartCount": 0, "image": "i", "imageID": "", "state": state}


def terminated(exit_code: int, message: str = "", reason: str = "Error") -> Json:
    return container(
        terminated={
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "startedAt": "2026-01-01T00:00:10Z",
            "finishedAt": "2026-01-01T00:01:00Z",
            "containerID": "containerd://abc",
        }
    )


def condition(kind: str, value: str = "True", reason: str = "", message: str = "") -> Json:
    return {"type": kind, "status": value, "reason": reason, "message": message}


SCHEDULED = condition("PodScheduled")
