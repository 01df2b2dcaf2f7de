"""A mistake in a free-form block is refused with the field and the nearest name that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from finetune_trainer.blocks import (
    build_peft_config,
    build_quantization_config,
    build_sft_config_kwargs,
    model_arguments,
    validate_blocks,
)
from finetune_trainer.contract import TrainingConfig
from finetune_trainer.errors import InvalidConfig


def refused(**training: Any) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as refusal:
        validate_blocks(TrainingConfig.model_validate(training))
    return refusal.value


@pytest.mark.parametrize(
    ("block", "key", "nearest", "method"),
    [
        ("peftConfig", "lora_aplha", "lora_alpha", "lora"),
        ("quantizationConfig", "load_in_4bits", "load_in_4bit", "qlora"),
        ("trainerConfig", "learning_rte", "learning_rate", "full"),
        ("tokenizerConfig", "pad_tokn", "pad_token", "lora"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(block: str, key: str, nearest: str, method: str) -> None:
    error = refused(method=method, **{block: {key: 1}})
    assert error.field == f"spec.training.{block}.{key}"
    assert error.message == f"unknown key `{key}`; did you mean `{nearest}`?"
    assert error.advice == f"use `{nearest}`"


@pytest.mark.parametrize(
    ("block", "values", "method", "words"),
    [
        ("peftConfig", {"r": "many"}, "lora", "`r` is 'many'"),
        ("peftConfig", {"r": 0}, "lora", "`r` is 0"),
        ("peftConfig", {"bias": "sometimes"}, "lora", "`bias`"),
        ("quantizationConfig", {"load_in_4bit": "perhaps"}, "qlora", "`load_in_4bit` is 'perhaps'"),
        ("quantizationConfig", {"bnb_4bit_compute_dtype": "bfloat17"}, "qlora", "bfloat17"),
        ("trainerConfig", {"learning_rate": "fast"}, "lora", "`learning_rate` is 'fast'"),
        ("trainerConfig", {"per_device_train_batch_size": 0}, "lora", "`per_device_train_batch_size` is 0"),
        ("trainerConfig", {"lr_scheduler_type": "cosin"}, "lora", "cosin"),
        ("trainerConfig", {"optim": "adamm"}, "lora", "adamm"),
    ],
)
def test_a_value_that_the_library_cannot_take_is_refused(
    block: str, values: dict[str, Any], method: str, words: str
) -> None:
    error = refused(method=method, **{block: values})
    assert words in error.message
    assert (error.field or "").startswith(f"spec.training.{block}")


@pytest.mark.parametrize(
    ("block", "key", "decided_by"),
    [
        ("trainerConfig", "max_length", "spec.training.maxSequenceLength"),
        ("trainerConfig", "output_dir", "spec.output"),
        ("peftConfig", "task_type", "spec.training.method"),
        ("modelConfig", "trust_remote_code", "spec.model.trustRemoteCode"),
    ],
)
def test_what_the_operator_sets_itself_is_refused_with_the_field_to_use(block: str, key: str, decided_by: str) -> None:
    error = refused(**{block: {key: 1}})
    assert error.advice is not None
    assert decided_by in error.advice


@pytest.mark.parametrize(
    ("method", "block"), [("lora", "quantizationConfig"), ("full", "quantizationConfig"), ("full", "peftConfig")]
)
def test_a_block_that_would_do_nothing_is_refused(method: str, block: str) -> None:
    error = refused(method=method, **{block: {"anything": 1}})
    assert error.field == f"spec.training.{block}"
    assert f"does nothing with method {method}" in error.message


def test_numbers_written_as_yaml_text_are_numbers(job: Any, tmp_path: Path) -> None:
    training = {"maxSequenceLength": 64, "trainerConfig": {"learning_rate": "1e-3"}}
    kwargs = build_sft_config_kwargs(job(training=training), tmp_path)
    assert kwargs["learning_rate"] == pytest.approx(0.001)
    assert (kwargs["max_length"], kwargs["use_cpu"], kwargs["bf16"]) == (64, True, False)


def test_lora_puts_adapters_on_all_linear_layers_unless_told_otherwise() -> None:
    config = build_peft_config(TrainingConfig.model_validate({"peftConfig": {"r": "4"}}))
    assert (config.r, config.target_modules, config.task_type) == (4, "all-linear", "CAUSAL_LM")
    assert build_peft_config(TrainingConfig.model_validate({"method": "full"})) is None


def test_qlora_is_nf4_with_double_quantisation_unless_told_otherwise() -> None:
    plain = build_quantization_config(TrainingConfig.model_validate({"method": "qlora"}))
    assert (plain.load_in_4bit, plain.bnb_4bit_quant_type, plain.bnb_4bit_use_double_quant) == (True, "nf4", True)
    eight = {"method": "qlora", "quantizationConfig": {"load_in_8bit": True}}
    assert build_quantization_config(TrainingConfig.model_validate(eight)).load_in_4bit is False


def test_model_config_knows_the_fields_of_the_model_itself() -> None:
    training = TrainingConfig.model_validate({"modelConfig": {"attention_dropout": 0.1, "dtype": "float32"}})
    assert model_arguments(training, LlamaConfig()) == {"attention_dropout": 0.1, "dtype": "float32"}
    typo = TrainingConfig.model_validate({"modelConfig": {"atention_dropout": 0.1}})
    with pytest.raises(InvalidConfig, match="did you mean `attention_dropout`"):
        model_arguments(typo, LlamaConfig())
