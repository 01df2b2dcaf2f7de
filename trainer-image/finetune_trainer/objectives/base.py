"""What an entry of the registry of objectives knows: what a row teaches, by which trainer, and how a model answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from finetune_trainer.contract import RunConfig


class Objective(Protocol):
    """One thing to learn. Importing an entry imports no torch."""

    @property
    def name(self) -> str: ...

    @property
    def learns_all(self) -> bool:
        """Whether every token of a row counts for the loss, whatever its format marks."""
        ...

    @property
    def auto_class(self) -> str:
        """The class of `transformers` that loads the model."""
        ...

    def trainer_class(self) -> Any:
        """A subclass of `transformers.Trainer`."""
        ...

    def parts(self, model: Any, tokenizer: Any, adapter: Any | None) -> dict[str, Any]:
        """What the trainer is made of besides its arguments and its rows; `adapter` is the adaptation's peft_config."""
        ...

    def arguments_class(self) -> Any:
        """The dataclass of its arguments: what `trainerConfig` is checked against."""
        ...

    def arguments(self, config: RunConfig, output_dir: Path) -> dict[str, Any]:
        """Arguments that the job's other fields decide."""
        ...

    def answers(self, model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
        """What the model makes of each prompt."""
        ...
