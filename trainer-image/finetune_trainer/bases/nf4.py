"""4-bit NormalFloat with double quantisation (Dettmers et al. 2023, QLoRA), by bitsandbytes."""

from __future__ import annotations

from typing import Any

from finetune_trainer.bases.bits_and_bytes import BitsAndBytes
from finetune_trainer.bases.precision import half
from finetune_trainer.contract import Device


class NF4(BitsAndBytes):
    name = "nf4"
    bytes_per_weight = 0.516

    def defaults(self) -> dict[str, Any]:
        import torch  # noqa: PLC0415 - the operator reads this registry, too

        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": half(Device.CUDA) or torch.float32,
        }
