"""FineTuneJobs as tests write them, and what the cluster says of them."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.cluster.harness.cluster import Cluster
from tests.cluster.support.waiting import until

Manifest = dict[str, Any]

TRAINING = {
    "device": "cpu",
    "maxSequenceLength": 64,
    "peftConfig": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"},
    "trainerConfig": {
        "num_train_epochs": 1,
        "learning_rate": 0.01,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
    },
}


def merged(base: Manifest, change: Manifest) -> Manifest:
    """The base with the change merged in, maps deeply; None removes."""
    result = deepcopy(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = deepcopy(value)
    return result


def job(name: str, model: str, data: str, **spec: Any) -> Manifest:
    """A small job on CPU; `spec` is merged over its spec."""
    base = {
        "model": {"uri": model},
        "template": {"name": "lora"},
        "datasets": [{"uri": data}],
        "gpus": 1,
        "training": TRAINING,
        "workspace": {"size": "1Gi"},
    }
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": merged(base, spec),
    }


@dataclass(frozen=True)
class Jobs:
    """The FineTuneJobs of one namespace."""

    cluster: Cluster
    namespace: str

    def apply(self, manifest: Manifest) -> None:
        self.cluster.apply(json.dumps(manifest), self.namespace)

    def get(self, name: str) -> Manifest:
        found: Manifest = self.cluster.get("finetunejob", name, self.namespace)
        return found

    def status(self, name: str) -> Manifest:
        status: Manifest = self.get(name).get("status", {})
        return status

    def patch(self, name: str, spec: Manifest) -> None:
        patch = json.dumps({"spec": spec})
        self.cluster.kubectl("patch", "ftj", name, "-n", self.namespace, "--type=merge", "-p", patch)

    def until_phase(self, name: str, *phases: str, seconds: float = 600.0) -> Manifest:
        """The status once the job is in one of these phases; a job that fails instead ends the wait."""

        def reached() -> Manifest | None:
            status = self.status(name)
            phase = status.get("phase")
            if phase == "Failed" and "Failed" not in phases:
                raise AssertionError(f"job {name} failed: {json.dumps(status, indent=1)}")
            return status if phase in phases else None

        return until(reached, f"job {name} is {' or '.join(phases)}", seconds=seconds, story=lambda: self.story(name))

    def until_step(self, name: str, step: int, seconds: float = 600.0) -> Manifest:
        """The status once training has done this many steps."""
        return until(
            lambda: s if ((s := self.status(name)).get("progress") or {}).get("step", 0) >= step else None,
            f"job {name} is at step {step}",
            seconds=seconds,
            story=lambda: self.story(name),
        )

    def story(self, name: str) -> str:
        """What a person would look at."""
        return "\n".join(
            [
                json.dumps(self.status(name), indent=1),
                self.cluster.kubectl("get", "pods,jobs", "-n", self.namespace, "-o", "wide"),
                self.cluster.kubectl("get", "events", "-n", self.namespace, "--sort-by=.lastTimestamp"),
            ]
        )

    def pods(self, name: str, stage: str) -> list[Manifest]:
        selector = f"finetune-operator.io/job={name},finetune-operator.io/stage={stage}"
        found: list[Manifest] = self.cluster.get("pods", namespace=self.namespace, selector=selector)
        return found

    def events(self, name: str) -> list[Manifest]:
        found: list[Manifest] = self.cluster.get("events", namespace=self.namespace)
        return [event for event in found if event["involvedObject"]["name"] == name]


def condition(status: Manifest, kind: str) -> Manifest:
    """The condition of this type, or an empty one."""
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})
