"""Objects as the API server sends them, for tests."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]


def finetune_job(name: str = "bot", version: int = 1, template: str = "lora", **status: Any) -> Body:
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "generation": 1,
            "managedFields": [{"manager": "kubectl"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"},
        },
        "spec": {
            "model": {"uri": "hf://a/b"},
            "template": {"name": template},
            "datasets": [{"uri": "s3://team/rows.jsonl", "secretRef": {"name": "creds"}}],
            "gpus": 1,
            "output": {"uri": "s3://team/out"},
        },
    } | ({"status": status} if status else {})


def child(kind: str, name: str, version: int = 1, job: str = "bot", owner: str | None = None, **more: Any) -> Body:
    """A Job of the FineTuneJob, or a pod of its Job for training, unless it has another owner."""
    owner = owner or (f"uid-{job}" if kind == "Job" else f"uid-{job}-train")
    of_job = {"kind": "FineTuneJob", "name": job} if kind == "Job" else {"kind": "Job", "name": f"{job}-train"}
    return {
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app.kubernetes.io/managed-by": "finetune-operator",
                "finetune-operator.io/job": job,
                "finetune-operator.io/stage": "train",
            },
            "ownerReferences": [{"uid": owner, "controller": True} | of_job],
        },
        "spec": {},
        "status": {},
    } | more


def template(kind: str, name: str = "lora", version: int = 1, namespace: str | None = None) -> Body:
    metadata = {"name": name, "uid": f"uid-{namespace}-{name}", "resourceVersion": str(version)}
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": kind,
        "metadata": metadata | ({"namespace": namespace} if namespace else {}),
        "spec": {"training": {"method": "lora"}},
    }
