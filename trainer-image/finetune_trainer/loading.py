"""Loads the base model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.blocks import model_arguments
from finetune_trainer.contract import RunConfig
from finetune_trainer.model import ModelFiles, load_config, model_files
from finetune_trainer.workspace import Paths

if TYPE_CHECKING:
    from finetune_trainer.compatibility import Choice


def load_base_model(choice: Choice, config: RunConfig, paths: Paths) -> Any:
    """The untouched model on the CPU (a quantised one on its device), dequantised when it comes as GGUF.

    In `modelConfig.dtype`, else in what its kind of weights is loaded in.
    """
    arguments: dict[str, Any] = {}
    if config.training.model_block:
        arguments = model_arguments(config.training, load_config(config, paths))
    return load(choice, config, model_files(config, paths), arguments, paths.scratch)


def load(choice: Choice, config: RunConfig, files: ModelFiles, arguments: dict[str, Any], scratch: Path) -> Any:
    """The model in these files as the job's base, with arguments of `from_pretrained`."""
    auto = auto_class(choice)
    given = {
        "dtype": choice.base.dtype(config.topology.device, trains_base=choice.adaptation.trains_base),
        **arguments,
        "trust_remote_code": config.model.trust_remote_code,
    }
    quantization = choice.base.quantization_config(config.training)
    if quantization is None:
        model = auto.from_pretrained(files.folder, **files.arguments, **given)
        return model if files.gguf is None else _without_gguf(model)
    if files.gguf is None:
        return auto.from_pretrained(files.folder, quantization_config=quantization, **given)
    plain = _without_gguf(auto.from_pretrained(files.folder, **files.arguments, **given))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        plain.save_pretrained(folder)
        del plain
        return auto.from_pretrained(folder, quantization_config=quantization, **given)


def auto_class(choice: Choice) -> Any:
    """The class of `transformers` that makes the job's kind of model."""
    import transformers  # noqa: PLC0415 - slow to import

    return getattr(transformers, choice.objective.auto_class)


def _without_gguf(model: Any) -> Any:
    """A model from GGUF believes that it is quantised, and could be neither trained nor saved."""
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    return model
