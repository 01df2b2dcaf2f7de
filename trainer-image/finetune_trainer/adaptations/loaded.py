"""Trained weights that have been loaded again, before they may answer."""

from __future__ import annotations

from typing import Any

from finetune_trainer.errors import Internal


def ready(model: Any) -> Any:
    """For answering, on a GPU where there is one. Raises `Internal` for weights that are no numbers."""
    import torch  # noqa: PLC0415 - the operator reads the registry, too

    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise Internal(f"the trained weights are broken: `{name}` holds NaN or infinity")
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        model.to("cuda")
    return model.eval()
