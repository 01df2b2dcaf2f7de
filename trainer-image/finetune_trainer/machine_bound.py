"""Arguments of trainers that only the machine that trains can accept or refuse, and the packages that they need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

ARGUMENTS: Final = frozenset(
    {
        *("bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval"),
        *("torch_compile", "torch_compile_backend", "torch_compile_mode"),
        *("use_liger_kernel", "padding_free", "activation_offloading"),
    }
)
_PACKAGES: Final = {"use_liger_kernel": "liger_kernel"}
_OPTIMIZERS: Final = {
    re.compile(r"bnb|paged|^(adamw|lion|ademamix|rmsprop|adagrad)_8bit"): "bitsandbytes",
    re.compile(r"_torch_(4bit|8bit)$"): "torchao",
    re.compile(r"apex"): "apex",
}
"""Optimisers that compute on a GPU only. Others try their package themselves, on whatever machine."""
_ATTENTION: Final = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Values of `attn_implementation` that compute on a GPU only, with their packages."""


def attention_package(model_arguments: Mapping[str, Any]) -> str | None:
    """The package of an attention that computes on a GPU only, kernels of the Hub included; None for any other."""
    asked = str(model_arguments.get("attn_implementation", ""))
    return "kernels" if "/" in asked else _ATTENTION.get(asked)


def packages(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What the image must have for arguments that are not tried without a GPU: from the argument to the package."""
    needed = {key: package for key, package in _PACKAGES.items() if arguments.get(key)}
    if (package := optimizer_package(arguments)) is not None:
        needed["optim"] = package
    return needed


def optimizer_package(arguments: Mapping[str, Any]) -> str | None:
    """The package of an optimiser that computes on a GPU only; None for any other."""
    asked = str(arguments.get("optim", ""))
    return next((package for kind, package in _OPTIMIZERS.items() if kind.search(asked)), None)
