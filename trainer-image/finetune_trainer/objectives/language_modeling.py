"""The next token is learned: of the answers (supervised), or of all there is (self-supervised). TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_trainer.contract import RunConfig
from finetune_trainer.objectives.generation import generated


class LanguageModeling:
    auto_class = "AutoModelForCausalLM"

    def trainer_class(self) -> Any:
        from trl import SFTTrainer  # noqa: PLC0415 - seconds, and the operator reads this registry, too

        return SFTTrainer

    def parts(self, model: Any, tokenizer: Any, adapter: Any | None) -> dict[str, Any]:
        return {"model": model, "processing_class": tokenizer, "peft_config": adapter}

    def arguments_class(self) -> Any:
        from trl import SFTConfig  # noqa: PLC0415 - as above

        return SFTConfig

    def arguments(self, config: RunConfig, output_dir: Path) -> dict[str, Any]:
        """For rows that are tokenised already."""
        training = config.training
        return {
            "output_dir": str(output_dir),
            "max_length": training.max_sequence_length,
            "packing": training.packing,
            "dataset_kwargs": None if training.packing else {"skip_prepare_dataset": True},
        }

    def answers(self, model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
        return generated(model, tokenizer, prompts)


class Supervised(LanguageModeling):
    name = "supervised"
    learns_all = False


class SelfSupervised(LanguageModeling):
    name = "self-supervised"
    learns_all = True
