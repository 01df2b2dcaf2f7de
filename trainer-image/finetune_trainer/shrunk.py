"""A model's configuration cut down until it trains a step in a moment, and is of the same kind still."""

from __future__ import annotations

import copy
from typing import Any, Final

LAYERS: Final = 2
_DEPTHS: Final = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    *("num_decoder_layers", "encoder_layers", "decoder_layers"),
)
_LARGE: Final = 50_000_000
"""Weights from which a configuration of two layers is made narrower, too."""
_WIDE: Final = 256
_EXPERTS: Final = {
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), _WIDE),
}
"""What makes a layer of a mixture of experts large, and the most that the copy has of it."""
_VOCABULARY: Final = 4096


def shrunk(model_config: Any) -> Any:
    """A copy with two layers of each kind; lists with one entry for each layer are cut alike."""
    small = copy.deepcopy(model_config)
    for part in _parts(small):
        depth = next((getattr(part, name) for name in _DEPTHS if isinstance(getattr(part, name, None), int)), None)
        for name in _DEPTHS:
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, min(LAYERS, getattr(part, name)))
        for name, value in list(vars(part).items()):
            if depth is not None and depth > LAYERS and isinstance(value, list) and len(value) == depth:
                setattr(part, name, value[:LAYERS])
    return small


def narrowed(small: Any, *, whole_vocabulary: bool = False) -> Any:
    """The copy with few, narrow heads and a small vocabulary, for models whose single layer is large."""
    narrow = copy.deepcopy(small)
    for part in _parts(narrow):
        if not isinstance(getattr(part, "hidden_size", None), int) or part.hidden_size <= _WIDE:
            continue
        heads = getattr(part, "num_attention_heads", None) or 1
        groups = getattr(part, "num_key_value_heads", None) or heads
        width = getattr(part, "head_dim", None) or part.hidden_size // heads
        few = 2 if groups == heads else 2 * min(heads // groups, 4)
        part.num_attention_heads = few
        if getattr(part, "num_key_value_heads", None):
            part.num_key_value_heads = few if groups == heads else 2
        part.hidden_size = few * width
        if isinstance(getattr(part, "intermediate_size", None), int):
            part.intermediate_size = 2 * part.hidden_size
        if isinstance(getattr(part, "vocab_size", None), int) and not whole_vocabulary:
            part.vocab_size = min(part.vocab_size, _VOCABULARY)
            part.pad_token_id = 0
        for name, most in _EXPERTS.items():
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, min(getattr(part, name), most))
    return narrow


def is_large(parameters: int) -> bool:
    """Whether to train a step of it would take seconds and gigabytes."""
    return parameters > _LARGE


def _parts(model_config: Any) -> list[Any]:
    """The configuration itself and those of the towers of a multimodal model."""
    nested = [part for part in vars(model_config).values() if hasattr(part, "to_dict") and hasattr(part, "model_type")]
    return [model_config, *nested]
