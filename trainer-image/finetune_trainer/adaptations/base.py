"""What an entry of the registry of adaptations knows: what is trained, saved, loaded again and published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from finetune_trainer.contract import TrainingConfig

Ask = Callable[[Any, str], list[str]]
"""Answers of a model to the sample prompts; the text says whose they are."""

LoadBase = Callable[[], Any]
"""Loads the untouched model."""


class Adaptation(Protocol):
    """One way to change a model. Importing an entry imports no torch."""

    @property
    def name(self) -> str: ...

    @property
    def methods(self) -> Mapping[str, str]:
        """The values of `spec.training.method` that mean it, each with the base weights that it means besides."""
        ...

    @property
    def trains_base(self) -> bool:
        """Whether the base model's own weights are trained."""
        ...

    @property
    def takes_peft_config(self) -> bool: ...

    @property
    def artifact(self) -> str:
        """What publish leaves: `adapter` or `model`."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Of the model card."""
        ...

    def peft_config(self, training: TrainingConfig, model: Any = None) -> Any | None:
        """The configuration that the trainer wraps the model with; None to train it as it is. Raises InvalidConfig.

        Without the model, what depends on it is left open.
        """
        ...

    def is_planned(self, model: Any) -> bool:
        """Whether a model, unwrapped from what spreads it over processes, is one that this adaptation trains."""
        ...

    def compare(
        self, load_base: LoadBase, trained: Path, ask: Ask, *, trust_remote_code: bool
    ) -> tuple[list[str], list[str]]:
        """What the base model answers, and what the trained one does, as it lies on the disk.

        Never holds two whole models. Raises `Internal` when the trained weights do not load, or do not fit.
        """
        ...
