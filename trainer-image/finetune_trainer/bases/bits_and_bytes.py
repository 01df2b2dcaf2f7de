"""What the bases that bitsandbytes quantises have in common."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from finetune_trainer.bases.precision import half
from finetune_trainer.blocks import build, checked
from finetune_trainer.contract import Device, TrainingConfig
from finetune_trainer.errors import InvalidConfig

if TYPE_CHECKING:
    import torch


class BitsAndBytes:
    """Packs the weights of linear layers while the model is loaded."""

    quantised = True

    def defaults(self) -> dict[str, Any]:
        """Arguments of `transformers.BitsAndBytesConfig` where `quantizationConfig` names no others."""
        raise NotImplementedError

    def quantization_config(self, training: TrainingConfig) -> Any:
        """The `transformers.BitsAndBytesConfig` of the job. Raises `InvalidConfig`."""
        from transformers import BitsAndBytesConfig  # noqa: PLC0415 - the operator reads this registry, too

        known = {
            name: object if parameter.default is None else type(parameter.default)
            for name, parameter in inspect.signature(BitsAndBytesConfig.__init__).parameters.items()
            if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        values = {**self.defaults(), **checked("quantizationConfig", training.quantization_config, known, {})}
        found = build("quantizationConfig", lambda: BitsAndBytesConfig(**values))
        if not found.is_quantizable():
            raise InvalidConfig(
                "quantizationConfig quantises nothing",
                field="spec.training.quantizationConfig",
                advice="remove load_in_4bit and load_in_8bit, or set method to lora",
            )
        return found

    def dtype(self, device: Device, *, trains_base: bool) -> torch.dtype:  # noqa: ARG002 - never trained
        import torch  # noqa: PLC0415 - as above

        return half(device) or torch.float32

    def ready_to_train(self, model: Any) -> None:
        """Undo what TRL 1.16 and bitsandbytes 0.50 do to a quantised model, each without a word.

        TRL casts the adapter to bf16: a resumed run drifts. On a CPU with AVX512-BF16, the first evaluation repacks the
        4-bit weights for a kernel without a gradient: from then on nothing is learnt through the layers below.
        """
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - torch types every attribute
