"""Low-rank adapters beside linear layers (Hu et al. 2021), by PEFT; over 4-bit weights it is called QLoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from finetune_trainer.adaptations.base import Ask, LoadBase
from finetune_trainer.adaptations.loaded import ready
from finetune_trainer.blocks import build, checked, field_types
from finetune_trainer.contract import TrainingConfig
from finetune_trainer.errors import Internal
from finetune_trainer.towers import TOWERS, is_of_tower

_OWNED: Final = ("task_type", "peft_type", "peft_version", "base_model_name_or_path", "inference_mode")


class Lora:
    name = "lora"
    methods: Final = {"lora": "dense", "qlora": "nf4"}
    trains_base = False
    takes_peft_config = True
    artifact = "adapter"
    tags = ("lora",)

    def peft_config(self, training: TrainingConfig, model: Any = None) -> Any:
        """The `peft.LoraConfig` of the job, on every linear layer of the text model unless it names others.

        What a tower for images or sound learns from text is nothing: its parameters would get no gradient.
        """
        import peft  # noqa: PLC0415 - heavy, and the operator reads this registry, too

        owned = dict.fromkeys(_OWNED, "spec.training.method")
        values = checked("peftConfig", training.peft_config, field_types(peft.LoraConfig), owned)
        values.setdefault("target_modules", "all-linear")
        if (
            values["target_modules"] == "all-linear"
            and model is not None
            and any(is_of_tower(name) for name, _ in model.named_modules())
        ):
            values.setdefault("exclude_modules", TOWERS)
        return build("peftConfig", lambda: peft.LoraConfig(task_type="CAUSAL_LM", **values))

    def is_planned(self, model: Any) -> bool:
        import peft  # noqa: PLC0415 - as above

        return isinstance(model, peft.PeftModel)

    def compare(
        self, load_base: LoadBase, trained: Path, ask: Ask, *, trust_remote_code: bool
    ) -> tuple[list[str], list[str]]:
        del trust_remote_code
        model = _attached(load_base(), trained)
        with model.disable_adapter():
            before = ask(model, "the base model")
        return before, ask(model, "the new model")


def _attached(base: Any, trained: Path) -> Any:
    import peft  # noqa: PLC0415 - as above
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        model = peft.PeftModel.from_pretrained(base, trained)
        with safe_open(trained / "adapter_model.safetensors", "pt") as file:
            saved = set(file.keys())
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise Internal(f"the adapter does not load: {error}") from error
    if missing := saved ^ set(peft.get_peft_model_state_dict(model)):
        raise Internal(f"the adapter does not fit the base model: {len(missing)} tensors, such as {min(missing)}")
    return ready(model)
