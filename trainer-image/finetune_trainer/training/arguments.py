"""Arguments of the trainer: the job's `trainerConfig` over our defaults, under what the plan decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_trainer.bases.precision import half
from finetune_trainer.blocks import trainer_arguments
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import CheckpointPolicy, Device, RunConfig


def training_arguments(
    choice: Choice, config: RunConfig, output_dir: Path, *, evaluates: bool, evaluates_base: bool
) -> Any:
    """The objective's arguments class, filled. Raises `InvalidConfig` for a block that it refuses."""
    cls = choice.objective.arguments_class()
    topology, asked = config.topology, _asked(config, cls)
    return cls(
        **{
            "logging_steps": 1,
            **_precision(topology.device),
            **choice.strategy.trainer_arguments(topology),
            **_evaluating_alike(asked),
            **asked,
            **choice.objective.arguments(config, output_dir),
            **_saving(config.checkpoints),
            "use_cpu": topology.device is Device.CPU,
            "report_to": "none",
            "disable_tqdm": True,
            "eval_strategy": "epoch" if evaluates else "no",
            "eval_on_start": evaluates_base,
            "logging_nan_inf_filter": False,
            "dataloader_pin_memory": topology.device is not Device.CPU,
        }
    )


def _precision(device: Device) -> dict[str, bool]:
    """The trainers of TRL ask for bf16 unless they are told otherwise."""
    import torch  # noqa: PLC0415 - slow to import

    kind = half(device)
    return {"bf16": kind is torch.bfloat16, "fp16": kind is torch.float16}


def _asked(config: RunConfig, cls: Any) -> dict[str, Any]:
    """The job's own; asking for one precision takes the other back."""
    asked = trainer_arguments(config.training, cls)
    for one, other in (("bf16", "fp16"), ("fp16", "bf16")):
        if asked.get(one):
            asked.setdefault(other, False)
    return asked


def _evaluating_alike(asked: dict[str, Any]) -> dict[str, Any]:
    """Evaluation takes as many rows at once as training, unless the job says otherwise."""
    rows = asked.get("per_device_train_batch_size")
    return {} if rows is None else {"per_device_eval_batch_size": rows}


def _saving(policy: CheckpointPolicy) -> dict[str, Any]:
    if policy.every_steps is not None:
        return {"save_strategy": "steps", "save_steps": policy.every_steps}
    return {"save_strategy": "epoch" if policy.every_seconds is None else "no"}
