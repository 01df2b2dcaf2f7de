"""What a pod asks for by default: CPU and memory that go with its GPUs, or with its processes.

A pod without requests is the first that a node under pressure evicts.
"""

from __future__ import annotations

from finetune_operator.plan.model.resolved import PodDefaults
from finetune_trainer.contract import Device, RunConfig, Stage


def default_requests(defaults: PodDefaults, config: RunConfig) -> dict[str, str]:
    """CPU and memory that the trainer container of a stage asks for, where podTemplate says nothing of them."""
    gpus = gpus_of_pod(config)
    cpu, memory = _per_gpu(defaults, gpus) if gpus else _on_cpu(defaults, config)
    return {name: amount for name, amount in (("cpu", cpu), ("memory", memory)) if amount is not None}


def gpus_of_pod(config: RunConfig) -> int:
    """GPUs of one pod of the stage: none to prepare, one to publish."""
    if config.topology.device is Device.CPU or config.stage is Stage.PREPARE:
        return 0
    return config.topology.processes_per_node if config.stage is Stage.TRAIN else 1


def _per_gpu(defaults: PodDefaults, gpus: int) -> tuple[str | None, str | None]:
    cpu, memory = gpus * defaults.cpu_per_gpu, gpus * defaults.memory_per_gpu_gib
    return str(cpu) if cpu else None, f"{memory}Gi" if memory else None


def _on_cpu(defaults: PodDefaults, config: RunConfig) -> tuple[str | None, str | None]:
    if config.stage is Stage.PREPARE:
        cpu, memory = defaults.prepare_cpu_millis, defaults.prepare_memory_mib
    else:
        processes = config.topology.processes_per_node if config.stage is Stage.TRAIN else 1
        cpu, memory = processes * defaults.cpu_millis_per_process, processes * defaults.memory_mib_per_process
    return f"{cpu}m" if cpu else None, f"{memory}Mi" if memory else None
