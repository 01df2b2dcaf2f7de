"""What is trained must be what was planned, and no entry holds more than it says."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM

from finetune_operator.builtin import templates
from finetune_trainer.adaptations import ADAPTATIONS
from finetune_trainer.adaptations.full import Full
from finetune_trainer.adaptations.lora import Lora
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import Topology, TrainingConfig
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.machine_bound import optimizer_package, packages
from finetune_trainer.strategies import STRATEGIES
from finetune_trainer.towers import is_of_tower

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}


def a_model() -> Any:
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, **SIZES))


class Wrapped(DistributedDataParallel):
    """Distributed, as far as anybody asks: a real one needs a process group."""

    def __init__(self, module: Any) -> None:
        torch.nn.Module.__init__(self)
        self.module = module


def test_each_strategy_knows_the_model_within_what_it_makes_and_nothing_else() -> None:
    model = a_model()
    compiled = torch.compile(model)
    single, ddp = STRATEGIES["single"], STRATEGIES["ddp"]
    assert single.unwrapped(model) is model
    assert single.unwrapped(compiled) is model
    assert ddp.unwrapped(Wrapped(model)) is model
    assert ddp.unwrapped(Wrapped(compiled)) is model
    assert single.unwrapped(Wrapped(model)) is None
    assert single.unwrapped(torch.nn.DataParallel(model)) is None
    assert ddp.unwrapped(model) is None
    assert ddp.unwrapped(compiled) is None


def test_each_adaptation_knows_what_it_trains() -> None:
    plain = a_model()
    adapted = peft.get_peft_model(a_model(), peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    planned = {name: (entry.is_planned(plain), entry.is_planned(adapted)) for name, entry in ADAPTATIONS.items()}
    assert planned == {"lora": (False, True), "full": (True, False)}


def test_publishing_a_whole_model_never_holds_two_of_them(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    alive: list[weakref.ref[Any]] = []
    asked: list[tuple[str, int]] = []

    def load_base() -> Any:
        base = a_model()
        alive.append(weakref.ref(base))
        return base

    def ask(model: Any, whose: str) -> list[str]:
        alive.append(weakref.ref(model))
        gc.collect()
        asked.append((whose, len({id(found) for ref in alive if (found := ref()) is not None})))
        return [whose]

    before, after = Full().compare(load_base, tmp_path, ask, trust_remote_code=False)
    assert (before, after) == (["the base model"], ["the new model"])
    assert asked == [("the base model", 1), ("the new model", 1)]


@pytest.mark.parametrize("name", ["lora", "qlora", "full"])
def test_the_built_in_templates_can_be_trained(name: str) -> None:
    assert checked(name) is not None


def test_eight_bits_can_be_had_from_the_built_in_template() -> None:
    choice = checked("qlora", quantizationConfig={"load_in_8bit": True})
    assert choice.base.name == "int8"


def checked(name: str, **changes: Any) -> Choice:
    """The template's training with these changes, as far as it is judged without a model."""
    template = next(found for found in templates() if found.metadata.name == name)
    assert template.spec.training is not None
    block = template.spec.training.model_dump(mode="json", by_alias=True, exclude_none=True)
    training = TrainingConfig.model_validate({**block, **changes})
    choice = Choice.of(training, Topology())
    choice.base.quantization_config(training)
    choice.adaptation.peft_config(training)
    return choice


def test_a_quantised_base_that_would_quantise_nothing_is_refused() -> None:
    training = TrainingConfig.model_validate({"method": "qlora", "quantizationConfig": {"load_in_4bit": False}})
    with pytest.raises(InvalidConfig, match="quantises nothing"):
        Choice.of(training, Topology()).base.quantization_config(training)


@pytest.mark.parametrize(
    ("optim", "package"),
    [
        ("adamw_torch_fused", None),
        ("adafactor", None),
        ("adamw_8bit", "bitsandbytes"),
        ("paged_adamw_32bit", "bitsandbytes"),
        ("adamw_torch_4bit", "torchao"),
        ("adamw_apex_fused", "apex"),
        ("galore_adamw", None),
    ],
)
def test_optimisers_that_only_a_gpu_has_are_known_with_their_package(optim: str, package: str | None) -> None:
    assert optimizer_package({"optim": optim}) == package
    assert packages({"optim": optim}) == ({} if package is None else {"optim": package})


@pytest.mark.parametrize(
    ("name", "towers"),
    [
        ("model.vision_tower.encoder.layers.0.mlp.fc1", 1),
        ("model.multi_modal_projector", 1),
        ("model.language_model.layers.0.self_attn.q_proj", 0),
        ("lm_head", 0),
    ],
)
def test_towers_are_known_by_their_names(name: str, towers: int) -> None:
    assert is_of_tower(name) == bool(towers)


def test_lora_names_no_towers_where_there_are_none() -> None:
    assert Lora().peft_config(TrainingConfig(), a_model()).exclude_modules is None
