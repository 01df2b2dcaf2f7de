"""Weights as they are: in half precision on a GPU under an adapter; in float32 on a CPU, or where they are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_trainer.bases.precision import half
from finetune_trainer.contract import Device, TrainingConfig

if TYPE_CHECKING:
    import torch


class Dense:
    name = "dense"
    quantised = False
    bytes_per_weight = 2.0

    def quantization_config(self, training: TrainingConfig) -> None:
        del training

    def dtype(self, device: Device, *, trains_base: bool) -> torch.dtype:
        import torch  # noqa: PLC0415 - the operator reads this registry, too

        return torch.float32 if trains_base else half(device) or torch.float32

    def ready_to_train(self, model: Any) -> None:
        del model
