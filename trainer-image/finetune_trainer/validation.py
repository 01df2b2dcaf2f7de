"""The free-form blocks of `spec.training`, checked before anything is fetched."""

from __future__ import annotations

from finetune_trainer import machine_bound
from finetune_trainer.blocks import build, refuse_owned_of_model, tokenizer_arguments, trainer_arguments
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import TrainingConfig


def validate(choice: Choice, training: TrainingConfig) -> None:
    """Raises `InvalidConfig` naming the field: an unknown key, a value of another type, one that is refused."""
    tokenizer_arguments(training)
    refuse_owned_of_model(training)
    if training.peft_config:
        choice.adaptation.peft_config(training)
    if training.quantization_config:
        choice.base.quantization_config(training)
    if training.trainer_config:
        _try_trainer(choice, training)


def _try_trainer(choice: Choice, training: TrainingConfig) -> None:
    cls = choice.objective.arguments_class()
    values = {
        key: value for key, value in trainer_arguments(training, cls).items() if key not in machine_bound.ARGUMENTS
    }
    build("trainerConfig", lambda: cls(output_dir="unused", use_cpu=True, bf16=False, report_to="none", **values))
