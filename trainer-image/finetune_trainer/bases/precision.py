"""Half precision, as the machine at hand has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_trainer.contract import Device

if TYPE_CHECKING:
    import torch


def half(device: Device) -> torch.dtype | None:
    """bfloat16 where the GPU computes in it, float16 on older ones (T4, V100); None without a GPU."""
    import torch  # noqa: PLC0415 - the operator reads the registry, too

    if device is not Device.CUDA or not torch.cuda.is_available():
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
