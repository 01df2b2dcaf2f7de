"""A few lines of Python that load an artifact of a local run. They are meant to work as they stand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from finetune_operator.local.artifacts import local_folder
from finetune_operator.local.folders import JobFolder, shown
from finetune_trainer.contract import ModelSource


def snippet(kind: str, artifact: Path, model: ModelSource, folder: JobFolder) -> str | None:
    """The lines; None for an artifact that is not loaded, or a base model that this machine does not have."""
    if kind == "model":
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f'model = AutoModelForCausalLM.from_pretrained("{shown(artifact)}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{shown(artifact)}")'
        )
    base = _base(model, folder)
    if kind != "adapter" or base is None:
        return None
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"base = AutoModelForCausalLM.from_pretrained({base})\n"
        f'model = PeftModel.from_pretrained(base, "{shown(artifact)}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{shown(artifact)}")'
    )


def _base(model: ModelSource, folder: JobFolder) -> str | None:
    """Arguments of from_pretrained for the model that the adapter belongs to."""
    scheme, _, rest = model.uri.partition("://")
    if scheme == "hf":
        return f'"{rest}"' + (f', revision="{model.revision}"' if model.revision else "")
    here = _in_package(rest) if scheme == "pkg" else local_folder(model.uri, folder) or _downloaded(folder)
    if here is None or not here.exists():
        return None
    if here.is_dir():
        ggufs = sorted(here.glob("*.gguf"))
        has_config = (here / "config.json").is_file()
        return f'"{shown(here)}"' if has_config else _gguf(ggufs[0]) if len(ggufs) == 1 else None
    return _gguf(here)


def _gguf(file: Path) -> str:
    return f'"{shown(file.parent)}", gguf_file="{file.name}"'


def _in_package(rest: str) -> Path | None:
    """The file or folder of `pkg://module/path`, without importing the module."""
    module, _, below = rest.partition("/")
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / below


def _downloaded(folder: JobFolder) -> Path | None:
    """The base model as the prepare stage fetched it."""
    return next(iter(folder.volumes_dir.glob("*/*/model")), None)
