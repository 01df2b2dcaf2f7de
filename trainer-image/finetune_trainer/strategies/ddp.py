"""Every process holds the whole model, and gradients are averaged (torch's DistributedDataParallel)."""

from __future__ import annotations

from typing import Any

from finetune_trainer.contract import Device, Topology
from finetune_trainer.strategies.compiled import without_compile


class DDP:
    name = "ddp"
    several = True

    def launch_config(self, topology: Topology) -> dict[str, Any]:
        """On CPU the type is MULTI_GPU as well: with MULTI_CPU, and with `--cpu`, accelerate 1.15 starts one process.

        The worker takes `ACCELERATE_USE_CPU` from the environment, and refuses a world that is not the planned one.
        """
        del topology
        return {"distributed_type": "MULTI_GPU", "use_cpu": False}

    def trainer_arguments(self, topology: Topology) -> dict[str, Any]:
        return {
            "ddp_find_unused_parameters": False,
            "ddp_backend": "gloo" if topology.device is Device.CPU else None,
        }

    def unwrapped(self, wrapped: Any) -> Any | None:
        from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 - the operator reads this registry, too

        model = without_compile(wrapped)
        return without_compile(model.module) if isinstance(model, DistributedDataParallel) else None
