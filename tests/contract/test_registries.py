"""The operator asks the trainer's registries what goes together, and imports no library of the trainer for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.unit.plan.builders import a_job, a_template
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType
from finetune_trainer.adaptations import ADAPTATIONS, METHODS
from finetune_trainer.bases import BASES
from finetune_trainer.compatibility import Choice, choices
from finetune_trainer.contract import Topology, TrainingConfig
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.objectives import OBJECTIVES
from finetune_trainer.strategies import STRATEGIES

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "fsspec", "numpy")


def test_the_operator_imports_nothing_heavy_of_the_trainer() -> None:
    program = f"""
import sys
import finetune_operator.plan.planner, finetune_operator.api.crd, finetune_trainer.compatibility
print(*(name for name in {HEAVY} if name in sys.modules))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_every_combination_has_a_verdict_and_the_methods_that_users_name_all_work() -> None:
    verdicts = {choice.names: choice.refused for choice in choices()}
    assert len(verdicts) == len(BASES) * len(ADAPTATIONS) * len(OBJECTIVES) * len(STRATEGIES)
    for base, adaptation in METHODS.values():
        found = [refused for names, refused in verdicts.items() if names[:2] == (base, adaptation)]
        assert found
        assert not any(found)
    assert verdicts["nf4", "full", "supervised", "ddp"] == (
        "full trains the base model's own weights, and nf4 packs them"
    )


@pytest.mark.parametrize(("processes", "strategy"), [(1, "single"), (2, "ddp")])
def test_the_strategy_follows_the_number_of_processes(processes: int, strategy: str) -> None:
    topology = Topology(processes_per_node=processes)
    assert Choice.of(TrainingConfig(), topology).strategy.name == strategy


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"method": "qlorra"}, "there is no method `qlorra`; did you mean `qlora`?"),
        ({"objective": "unsupervised"}, "there is no objective `unsupervised`; did you mean `supervised`?"),
        ({"method": "full", "peftConfig": {"r": 8}}, "peftConfig does nothing with method full"),
        ({"method": "lora", "quantizationConfig": {"load_in_4bit": True}}, "quantizationConfig does nothing with"),
    ],
)
def test_what_cannot_be_is_refused_in_words(training: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        Choice.of(TrainingConfig.model_validate(training), Topology())
    assert words in refusal.value.message
    assert refusal.value.advice


def test_a_job_that_cannot_work_is_stalled_before_it_has_a_pod() -> None:
    world = World(a_job(training={"method": "full", "peftConfig": {"r": 8}}), a_template())
    world.reconcile()
    assert world.holds(ConditionType.STALLED)
    assert world.status.message == (
        "spec.training.peftConfig: peftConfig does nothing with method full. "
        "remove peftConfig, or set method to lora or qlora"
    )
    assert not world.jobs
