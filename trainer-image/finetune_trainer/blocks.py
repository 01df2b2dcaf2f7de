"""The free-form blocks of `spec.training`: checked against the libraries' own signatures, then built.

An unknown key is refused with the nearest name that exists; a value goes through the library's own type of that
field, so that `"1e-3"` is a number where one is meant. Libraries are imported only when a block names them.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pydantic

from finetune_trainer.contract import Block, Device, Method, RunConfig, TrainingConfig
from finetune_trainer.errors import InvalidConfig

_OWNED_BY_PEFT: Final = {"task_type", "peft_type", "peft_version", "base_model_name_or_path", "inference_mode"}
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
_LOADING: Final = {"dtype": str, "attn_implementation": str, "use_safetensors": bool, "variant": str}
"""Arguments of `from_pretrained` besides the fields of the model's configuration, with their types."""
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
_PRECISION: Final = {"bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "torch_compile"}
"""What only the machine that trains can accept or refuse."""
_POSITIVE: Final = {
    "r",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
}
"""Numbers whose libraries take nonsense and fail later, on the GPU."""


def validate_blocks(training: TrainingConfig) -> None:
    """Raises `InvalidConfig` naming the field: an unknown key, a value of another type, a block that does nothing."""
    if training.method is Method.FULL and training.peft_config:
        raise _unused("peftConfig", "full", "lora or qlora")
    if training.method is not Method.QLORA and training.quantization_config:
        raise _unused("quantizationConfig", training.method, "qlora")
    _checked("tokenizerConfig", training.tokenizer_config, _TOKENIZER, {})
    for key in training.model_block:
        _refuse_owned("modelConfig", key, _OWNED_MODEL)
    if training.peft_config:
        build_peft_config(training)
    if training.quantization_config:
        build_quantization_config(training)
    if training.trainer_config:
        _try_trainer(training)


def model_arguments(training: TrainingConfig, model_config: Any) -> dict[str, Any]:
    """`modelConfig` as arguments of `from_pretrained`, checked against the configuration of the model itself."""
    fields = {name: object for name in model_config.to_dict() if not name.startswith("_")}
    return _checked("modelConfig", training.model_block, {**fields, **_LOADING}, _OWNED_MODEL)


def tokenizer_arguments(training: TrainingConfig) -> dict[str, Any]:
    """`tokenizerConfig` as arguments of `from_pretrained`."""
    return _checked("tokenizerConfig", training.tokenizer_config, _TOKENIZER, {})


def build_peft_config(training: TrainingConfig) -> Any:
    """The `peft.LoraConfig` of the job; None when it trains the whole model."""
    if training.method is Method.FULL:
        return None
    import peft  # noqa: PLC0415 - heavy, and not every job has one

    owned = dict.fromkeys(_OWNED_BY_PEFT, "spec.training.method")
    values = _checked("peftConfig", training.peft_config, _field_types(peft.LoraConfig), owned)
    values.setdefault("target_modules", "all-linear")
    return _built("peftConfig", lambda: peft.LoraConfig(task_type="CAUSAL_LM", **values))


def build_quantization_config(training: TrainingConfig) -> Any:
    """The `transformers.BitsAndBytesConfig` of a qlora job (NF4, double quantisation unless it says otherwise)."""
    if training.method is not Method.QLORA:
        return None
    import torch  # noqa: PLC0415
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    known = {
        name: object if parameter.default is None else type(parameter.default)
        for name, parameter in inspect.signature(BitsAndBytesConfig.__init__).parameters.items()
        if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    values = _checked("quantizationConfig", training.quantization_config, known, {})
    if not values.get("load_in_8bit"):
        values = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, **values}
        compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        values.setdefault("bnb_4bit_compute_dtype", compute)
    return _built("quantizationConfig", lambda: BitsAndBytesConfig(**values))


def build_sft_config_kwargs(config: RunConfig, output_dir: Path) -> dict[str, Any]:
    """Arguments of `trl.SFTConfig` for pre-tokenised rows: the job's `trainerConfig` over what the operator decides.

    The train stage adds what it owns itself (saving, evaluating, reporting).
    """
    training = config.training
    on_cpu = config.topology.device is Device.CPU
    return {
        "bf16": not on_cpu,
        **_trainer_values(training),
        "output_dir": str(output_dir),
        "use_cpu": on_cpu,
        "max_length": training.max_sequence_length,
        "packing": training.packing,
        "dataset_kwargs": None if training.packing else {"skip_prepare_dataset": True},
        "report_to": "none",
        "disable_tqdm": True,
    }


def _trainer_values(training: TrainingConfig) -> dict[str, Any]:
    if not training.trainer_config:
        return {}
    from trl import SFTConfig  # noqa: PLC0415

    return _checked("trainerConfig", training.trainer_config, _field_types(SFTConfig), _OWNED_TRAINER)


def _try_trainer(training: TrainingConfig) -> None:
    from trl import SFTConfig  # noqa: PLC0415

    values = {key: value for key, value in _trainer_values(training).items() if key not in _PRECISION}
    _built(
        "trainerConfig", lambda: SFTConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none", **values)
    )


def _checked(block: str, values: Block, known: Mapping[str, Any], owned: Mapping[str, str]) -> dict[str, Any]:
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


def _unused(block: str, method: str, instead: str) -> InvalidConfig:
    return InvalidConfig(
        f"{block} does nothing with method {method}",
        field=f"spec.training.{block}",
        advice=f"remove {block}, or set method to {instead}",
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


def _built(block: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError, ImportError) as error:
        raise InvalidConfig(f"{block}: {error}", field=f"spec.training.{block}") from error


def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints.get(field.name, object) for field in dataclasses.fields(cls) if field.init}


def _name_of(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
