"""LLM.int8() (Dettmers et al. 2022), by bitsandbytes: 8 bits a weight, outliers in 16."""

from __future__ import annotations

from typing import Any

from finetune_trainer.bases.bits_and_bytes import BitsAndBytes


class Int8(BitsAndBytes):
    name = "int8"
    bytes_per_weight = 1.0

    def defaults(self) -> dict[str, Any]:
        return {"load_in_8bit": True}
