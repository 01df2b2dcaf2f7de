"""One process trains alone."""

from __future__ import annotations

from typing import Any

from finetune_trainer.contract import Device, Topology
from finetune_trainer.strategies.compiled import without_compile


class Single:
    name = "single"
    several = False

    def launch_config(self, topology: Topology) -> dict[str, Any]:
        return {"distributed_type": "NO", "use_cpu": topology.device is Device.CPU}

    def trainer_arguments(self, topology: Topology) -> dict[str, Any]:
        del topology
        return {}

    def unwrapped(self, wrapped: Any) -> Any | None:
        from torch.nn.parallel import DataParallel, DistributedDataParallel  # noqa: PLC0415 - the operator reads this registry, too

        model = without_compile(wrapped)
        return None if isinstance(model, (DistributedDataParallel, DataParallel)) else model
