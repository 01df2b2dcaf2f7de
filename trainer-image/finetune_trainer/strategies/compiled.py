"""torch.compile puts a module around the model, in front of what a strategy does or behind it."""

from __future__ import annotations

from typing import Any


def without_compile(model: Any) -> Any:
    """The module that `torch.compile` was given; the model itself where it was not compiled."""
    return getattr(model, "_orig_mod", model)
