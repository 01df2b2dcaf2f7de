"""A tiny random model with a real chat tokenizer, and the folders of a stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune_trainer.contract import RunConfig
from finetune_trainer.workspace import Paths

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
WORDS = ["quick", "brown", "fox", "jumps", "over", "lazy", "dog", "sings", "near", "old", "bridge", "small", "owl"]


def tiny_tokenizer(*, chat: bool = True) -> Any:
    """Byte-level, as most models have it: any text becomes tokens and comes back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<end>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")  # noqa: S106
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def tiny_model(folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes, **heads, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model with random weights. Read-only."""
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "workspace", tmp_path / "scratch", tmp_path / "secrets", tmp_path / "volumes")
    for folder in (found.workspace, found.scratch, found.secrets, found.volumes):
        folder.mkdir()
    return found


@pytest.fixture
def said() -> list[str]:
    """What the stage told a person, through `said.append`."""
    return []


@pytest.fixture
def job(tmp_path: Path, model_folder: Path) -> Callable[..., RunConfig]:
    """Builds a RunConfig: `rows` become the dataset, everything else overrides the JSON of a small LoRA job."""

    def build(rows: list[dict[str, Any]] | None = None, **changes: Any) -> RunConfig:
        if rows is not None:
            write_rows(tmp_path / "rows.jsonl", rows)
        plain = {
            "job": {"name": "tiny", "namespace": "tests", "uid": "0"},
            "stage": "prepare",
            "model": {"uri": f"file://{model_folder}"},
            "datasets": [{"uri": f"file://{tmp_path}/rows.jsonl"}],
            "training": {"maxSequenceLength": 64, "peftConfig": {"r": 2}},
            "workspace": {"persistent": True},
            "output": {"uri": f"file://{tmp_path}/output"},
        }
        return RunConfig.model_validate({**plain, **changes})

    return build


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def pairs(count: int) -> list[dict[str, Any]]:
    """Different prompt-completion rows."""
    return [
        {"prompt": f"say {number} {WORDS[number % len(WORDS)]}", "completion": f"{number} times"}
        for number in range(count)
    ]
