"""What an entry of the registry of base weights knows: how the model that is fine-tuned is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from finetune_trainer.contract import Device, TrainingConfig

if TYPE_CHECKING:
    import torch


class BaseWeights(Protocol):
    """One way to hold the weights of the base model. Importing an entry imports no torch."""

    @property
    def name(self) -> str: ...

    @property
    def quantised(self) -> bool:
        """Whether a linear layer's weights are packed, so that they can be neither trained nor moved as they are."""
        ...

    @property
    def bytes_per_weight(self) -> float:
        """Of a linear layer, on a GPU; embeddings, norms and the head stay at 2."""
        ...

    def quantization_config(self, training: TrainingConfig) -> Any | None:
        """The argument `quantization_config` of `from_pretrained`; None to load as is. Raises `InvalidConfig`."""
        ...

    def dtype(self, device: Device, *, trains_base: bool) -> torch.dtype:
        """What the weights that are not packed are loaded in, unless `modelConfig.dtype` says otherwise."""
        ...

    def ready_to_train(self, model: Any) -> None:
        """Called once the trainer has the model: undoes what libraries have done to it that spoils training."""
        ...
