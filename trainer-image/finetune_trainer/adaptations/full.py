"""Every weight is trained, and a whole model comes out."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Final

from finetune_trainer.adaptations.base import Ask, LoadBase
from finetune_trainer.adaptations.loaded import ready
from finetune_trainer.contract import TrainingConfig
from finetune_trainer.errors import Internal


class Full:
    name = "full"
    methods: Final = {"full": "dense"}
    trains_base = True
    takes_peft_config = False
    artifact = "model"
    tags = ()

    def peft_config(self, training: TrainingConfig, model: Any = None) -> None:
        del training, model

    def is_planned(self, model: Any) -> bool:
        return not hasattr(model, "peft_config")

    def compare(
        self, load_base: LoadBase, trained: Path, ask: Ask, *, trust_remote_code: bool
    ) -> tuple[list[str], list[str]]:
        base = load_base()
        before = ask(base, "the base model")
        auto = type(base)
        del base
        gc.collect()
        return before, ask(_loaded(auto, trained, trust_remote_code=trust_remote_code), "the new model")


def _loaded(auto: Any, trained: Path, *, trust_remote_code: bool) -> Any:
    from safetensors import SafetensorError  # noqa: PLC0415 - the operator reads the registry, too

    try:
        model = auto.from_pretrained(trained, dtype="auto", trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise Internal(f"the trained model does not load: {error}") from error
    return ready(model)
