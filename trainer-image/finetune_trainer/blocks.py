"""The free-form blocks of `spec.training`: checked against the libraries' own signatures, then built.

An unknown key is refused with the nearest name that exists; a value goes through the library's own type of that
field, so that `"1e-3"` is a number where one is meant. Libraries are imported only when a block names them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pydantic

from finetune_trainer.contract import Block, TrainingConfig
from finetune_trainer.errors import InvalidConfig

_OWNED_TRAINER: Final = {
    "output_dir": "spec.output",
    "max_length": "spec.training.maxSequenceLength",
    "packing": "spec.training.packing",
    "completion_only_loss": "spec.training.lossOn",
    "assistant_only_loss": "spec.training.lossOn",
    "chat_template_path": "spec.training.chatTemplate",
    "dataset_text_field": "spec.datasets[].columns",
    "dataset_kwargs": "spec.datasets",
    "model_init_kwargs": "spec.training.modelConfig",
    "save_strategy": "spec.checkpoints",
    "save_steps": "spec.checkpoints",
    "save_total_limit": "spec.checkpoints",
    "save_only_model": "spec.checkpoints",
    "resume_from_checkpoint": "spec.checkpoints",
    "load_best_model_at_end": "spec.checkpoints",
    "eval_strategy": "spec.data.validationFraction",
    "eval_on_start": "spec.data.validationFraction",
    "report_to": "the progress endpoint",
    "disable_tqdm": "the progress endpoint",
    "push_to_hub": "spec.output",
    "hub_model_id": "spec.output",
    "hub_token": "spec.output.secretRef",
    "use_cpu": "spec.training.device",
    "deepspeed": "the plan",
    "fsdp": "the plan",
    "fsdp_config": "the plan",
    "ddp_backend": "the plan",
    "local_rank": "the plan",
    "accelerator_config": "the plan",
    "enable_jit_checkpoint": "the plan",
    "do_train": "the plan",
    "do_eval": "the plan",
    "do_predict": "the plan",
}
"""Arguments of the trainer that the operator sets itself, and the field of the job that decides them."""
_OWNED_MODEL: Final = {
    "quantization_config": "spec.training.quantizationConfig",
    "trust_remote_code": "spec.model.trustRemoteCode",
    "revision": "spec.model.revision",
    "token": "spec.model.secretRef",
    "gguf_file": "spec.model.uri",
    "device_map": "the plan",
    "tp_plan": "the plan",
}
LOADING: Final = {"dtype": str, "attn_implementation": str, "use_safetensors": bool, "variant": str}
"""Arguments of `from_pretrained` besides the fields of the model's configuration, with their types."""
_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
_TOKENIZER: Final = {
    "padding_side": str,
    "truncation_side": str,
    "bos_token": str,
    "eos_token": str,
    "pad_token": str,
    "unk_token": str,
    "add_bos_token": bool,
    "add_eos_token": bool,
    "add_prefix_space": bool,
    "clean_up_tokenization_spaces": bool,
    "legacy": bool,
    "fix_mistral_regex": bool,
}
_BLOCKS: Final = ("trainerConfig", "peftConfig", "quantizationConfig", "modelConfig", "tokenizerConfig")
_POSITIVE: Final = {
    "r",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
}
"""Numbers whose libraries take nonsense and fail later, on the GPU."""


def refuse_owned_of_model(training: TrainingConfig) -> None:
    """Raises `InvalidConfig` for what other fields of the job decide; the rest is checked once the model is there."""
    for key in training.model_block:
        _refuse_owned("modelConfig", key, _OWNED_MODEL)


def model_arguments(training: TrainingConfig, model_config: Any) -> dict[str, Any]:
    """`modelConfig` as arguments of `from_pretrained`, checked against the configuration of the model itself."""
    fields = {name: object for name in model_config.to_dict() if not name.startswith("_")}
    found = checked("modelConfig", training.model_block, {**fields, **LOADING}, _OWNED_MODEL)
    if "dtype" in found:
        found["dtype"] = _dtype(found["dtype"])
    return found


def _dtype(name: str) -> str:
    """As `from_pretrained` takes it."""
    plain = name.removeprefix("torch.")
    if plain not in _DTYPES:
        raise InvalidConfig(
            f"`dtype` is {name!r}", field="spec.training.modelConfig.dtype", advice=f"use one of {', '.join(_DTYPES)}"
        )
    return plain


def tokenizer_arguments(training: TrainingConfig) -> dict[str, Any]:
    """`tokenizerConfig` as arguments of `from_pretrained`."""
    return checked("tokenizerConfig", training.tokenizer_config, _TOKENIZER, {})


def trainer_arguments(training: TrainingConfig, known: Any) -> dict[str, Any]:
    """`trainerConfig` as arguments of the dataclass `known`, each as its field's type has it."""
    if not training.trainer_config:
        return {}
    return checked("trainerConfig", training.trainer_config, field_types(known), _OWNED_TRAINER)


def refused(training: TrainingConfig, error: Exception, when: str, *likely: str) -> InvalidConfig:
    """What a library refused, with the field: the key of a block that its words name, else the first `likely` block
    that the job has, else `spec.training`.
    """
    words, blocks = str(error) or type(error).__name__, training.model_dump(by_alias=True)
    keys = [(block, key) for block in _BLOCKS for key in blocks[block]]
    named = [f"{block}.{key}" for block, key in keys if re.search(rf"\b{re.escape(key)}\b", words)]
    given = [block for block in likely if blocks[block]]
    where = named if len(named) == 1 else given
    return InvalidConfig(f"{when}: {words}", field=".".join(["spec.training", *where[:1]]))


def checked(block: str, values: Block, known: Mapping[str, Any], owned: Mapping[str, str]) -> dict[str, Any]:
    """The block with each value as its field's type has it. Raises `InvalidConfig`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        _refuse_owned(block, key, owned)
        if key not in known:
            raise _unknown(block, key, set(known) - set(owned))
        found[key] = _of_type(block, key, value, known[key])
    return found


def _refuse_owned(block: str, key: str, owned: Mapping[str, str]) -> None:
    if key in owned:
        raise InvalidConfig(
            f"`{key}` is not for {block}: the operator sets it",
            field=f"spec.training.{block}.{key}",
            advice=f"remove it; {owned[key]} decides it",
        )


def _unknown(block: str, key: str, known: Iterable[str]) -> InvalidConfig:
    near = difflib.get_close_matches(key, sorted(known), n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return InvalidConfig(
        f"unknown key `{key}`{hint}",
        field=f"spec.training.{block}.{key}",
        advice=f"use `{near[0]}`" if near else "remove it, or look the name up in the library's documentation",
    )


def _of_type(block: str, key: str, value: Any, kind: Any) -> Any:
    if "[number of" in str(kind):  # peft writes placeholders into literals; it checks those itself when built
        return value
    try:
        adapter = pydantic.TypeAdapter(kind, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.errors.PydanticUserError:  # a type that only the library understands: it checks when built
        return value
    try:
        typed = adapter.validate_python(value)
    except pydantic.ValidationError as error:
        raise InvalidConfig(
            f"`{key}` is {value!r}: {error.errors()[0]['msg'].lower()}",
            field=f"spec.training.{block}.{key}",
            advice=f"set it to {_name_of(kind)}",
        ) from error
    if key in _POSITIVE and typed <= 0:
        raise InvalidConfig(f"`{key}` is {typed}", field=f"spec.training.{block}.{key}", advice="set it to more than 0")
    return typed


def build(block: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError, ImportError) as error:
        raise InvalidConfig(f"{block}: {error}", field=f"spec.training.{block}") from error


def field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints.get(field.name, object) for field in dataclasses.fields(cls) if field.init}


def _name_of(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
