"""How many pods train with how many processes each, and on what."""

from __future__ import annotations

from finetune_operator.api.rules import USUAL_GPUS_PER_NODE
from finetune_operator.api.spec import JobSpec, TrainingDevice
from finetune_operator.api.status import Reason
from finetune_operator.plan.model.problems import SpecProblem
from finetune_trainer.contract import Device, Topology


def topology(spec: JobSpec, wish: TrainingDevice) -> Topology:
    """Where the job's processes run. Raises `SpecProblem` when device and gpus do not go together."""
    device = _device(spec.gpus, wish)
    processes = max(spec.gpus, 1)
    per_node = min(spec.gpus_per_node or USUAL_GPUS_PER_NODE, processes)
    return Topology(nodes=processes // per_node, processes_per_node=per_node, device=device)


def _device(gpus: int, wish: TrainingDevice) -> Device:
    if wish is TrainingDevice.CUDA and gpus == 0:
        raise SpecProblem(
            Reason.INVALID_SPEC,
            "spec.training.device is cuda but spec.gpus is 0; ask for GPUs, or set spec.training.device to cpu",
        )
    if wish is TrainingDevice.CPU or gpus == 0:
        return Device.CPU
    return Device.CUDA
