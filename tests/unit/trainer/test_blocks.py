"""A mistake in a free-form block is refused with the field and the nearest name that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from finetune_trainer.blocks import model_arguments
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import Topology, TrainingConfig
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.training.arguments import training_arguments
from finetune_trainer.validation import validate


def chosen(**training: Any) -> tuple[Choice, TrainingConfig]:
    found = TrainingConfig.model_validate(training)
    return Choice.of(found, Topology()), found


def refused(**training: Any) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as refusal:
        check(**training)
    return refusal.value


def check(**training: Any) -> None:
    choice, found = chosen(**training)
    validate(choice, found)


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
    training = {
        "maxSequenceLength": 64,
        "trainerConfig": {"learning_rate": "1e-3", "per_device_train_batch_size": "3"},
    }
    choice, _ = chosen(**training)
    found = training_arguments(choice, job(training=training), tmp_path, evaluates=True, evaluates_base=False)
    assert found.learning_rate == pytest.approx(0.001)
    assert (found.per_device_train_batch_size, found.per_device_eval_batch_size) == (3, 3)
    assert (found.max_length, found.use_cpu, found.bf16, found.fp16) == (64, True, False, False)


def test_lora_puts_adapters_on_all_linear_layers_unless_told_otherwise() -> None:
    choice, training = chosen(peftConfig={"r": "4"})
    config = choice.adaptation.peft_config(training)
    assert config is not None
    assert (config.r, config.target_modules, config.task_type) == (4, "all-linear", "CAUSAL_LM")
    choice, training = chosen(method="full")
    assert choice.adaptation.peft_config(training) is None


def test_qlora_is_nf4_with_double_quantisation_unless_told_otherwise() -> None:
    choice, training = chosen(method="qlora")
    plain = choice.base.quantization_config(training)
    assert plain is not None
    assert (plain.load_in_4bit, plain.bnb_4bit_quant_type, plain.bnb_4bit_use_double_quant) == (True, "nf4", True)


def test_asking_for_8_bits_takes_the_4_back() -> None:
    choice, training = chosen(method="qlora", quantizationConfig={"load_in_8bit": True})
    eight = choice.base.quantization_config(training)
    assert eight is not None
    assert (choice.base.name, eight.load_in_8bit, eight.load_in_4bit) == ("int8", True, False)


@pytest.mark.parametrize(("written", "loaded"), [("torch.float32", "float32"), ("auto", "auto")])
def test_a_dtype_may_be_written_as_torch_prints_it(written: str, loaded: str) -> None:
    _, training = chosen(modelConfig={"dtype": written})
    assert model_arguments(training, LlamaConfig()) == {"dtype": loaded}


def test_a_dtype_that_nothing_trains_in_is_refused() -> None:
    _, training = chosen(modelConfig={"dtype": "float8"})
    with pytest.raises(InvalidConfig) as refusal:
        model_arguments(training, LlamaConfig())
    assert refusal.value.field == "spec.training.modelConfig.dtype"


def test_model_config_knows_the_fields_of_the_model_itself() -> None:
    training = TrainingConfig.model_validate({"modelConfig": {"attention_dropout": 0.1, "dtype": "float32"}})
    assert model_arguments(training, LlamaConfig()) == {"attention_dropout": 0.1, "dtype": "float32"}
    typo = TrainingConfig.model_validate({"modelConfig": {"atention_dropout": 0.1}})
    with pytest.raises(InvalidConfig, match="did you mean `attention_dropout`"):
        model_arguments(typo, LlamaConfig())
