"""TRL's SFTTrainer with our checkpoints, and with the assumptions it silently makes checked."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.parallel import DistributedDataParallel
from trl import SFTTrainer

from finetune_trainer.callbacks import ProgressCallback
from finetune_trainer.checkpoint import CheckpointStore
from finetune_trainer.contract import Method
from finetune_trainer.errors import Diverged, Internal
from finetune_trainer.gang import Gang
from finetune_trainer.manifest import Facts


class Trainer(SFTTrainer):  # type: ignore[misc] # trl has no types
    """Differs from SFTTrainer in four ways, all of them about not losing or spoiling work.

    A checkpoint is put together elsewhere, sealed by a manifest and renamed; the random number states of all ranks
    are gathered, so that only rank 0 writes. A loss or gradient that is not finite ends the run. The model is checked
    to be wrapped as planned. A quantised model stays one that can be trained and resumed.
    """

    def __init__(
        self, *, gang: Gang, store: CheckpointStore, figures: ProgressCallback, method: Method, run: str, **sft: Any
    ) -> None:
        super().__init__(**sft)
        self._gang = gang
        self._store = store
        self._figures = figures
        self._method = method
        self._run = run
        self._writing_to: Path | None = None
        if method is Method.QLORA:
            _keep_trainable(self.model)

    @property
    def global_batch(self) -> int:
        """Rows that one step consumes over all ranks."""
        rows: int = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return rows * self._gang.size

    def save_checkpoint(self) -> None:
        """Every rank: save where training stands now."""
        self._save_checkpoint(self.model_wrapped, trial=None)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The publish stage writes the card."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._check_finite(logs)
        super().log(logs, start_time)

    def _check_finite(self, logs: dict[str, float]) -> None:
        skips_bad_steps = getattr(self.accelerator, "scaler", None) is not None  # fp16: the scaler drops such a step
        names = ("loss",) if skips_bad_steps else ("loss", "grad_norm")
        for name in names:
            value = float(logs.get(name, 0.0))
            if not math.isfinite(value):
                kept = self._store.newest_step
                raise Diverged(
                    f"{name} became {value} at step {self.state.global_step} of {self.state.max_steps}; "
                    + (f"checkpoint {kept} is kept" if kept is not None else "there was no checkpoint yet"),
                    field="spec.training.trainerConfig.learning_rate",
                    advice="lower learning_rate, set max_grad_norm, or raise warmup_steps",
                )

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, Any]:
        wrapped, dataloader = super()._prepare_for_training(*args, **kwargs)
        distributed = isinstance(wrapped, DistributedDataParallel)
        if distributed != (self._gang.size > 1):
            raise Internal(f"{self._gang.size} ranks were planned, but the model is a {type(wrapped).__name__}")
        inner = wrapped.module if distributed else wrapped
        if isinstance(inner, PeftModel) != (self._method is not Method.FULL):
            raise Internal(f"method {self._method} was planned, but the model is a {type(inner).__name__}")
        if self.args.world_size != self._gang.size:
            raise Internal(f"world size: planned {self._gang.size}, but the trainer sees {self.args.world_size}")
        return wrapped, dataloader

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writing_to.parent) if self._writing_to else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        step = self.state.global_step
        self._writing_to = self._store.partial(step)
        try:
            super()._save_checkpoint(model, trial)
        except BaseException:
            self._store.abandon(step)
            raise
        finally:
            self._writing_to = None
        self._store.seal(self._facts(step))

    def _save_rng_state(self, output_dir: str) -> None:
        """Every rank's own file, all written by rank 0."""
        with tempfile.TemporaryDirectory() as scratch:
            super()._save_rng_state(scratch)
            (mine,) = Path(scratch).iterdir()
            states = self._gang.gather((mine.name, mine.read_bytes()))
        if self._gang.is_main_process:
            for name, content in states:
                (Path(output_dir) / name).write_bytes(content)

    def _facts(self, step: int) -> Facts:
        size = self._gang.size
        return Facts(
            step=step,
            world_size=size,
            global_batch=self.global_batch,
            run=self._run,
            rng=tuple(f"rng_state_{rank}.pth" for rank in range(size)) if size > 1 else ("rng_state.pth",),
            epoch=self.state.epoch,
            loss=self._figures.loss,
            eval_loss=self._figures.eval_loss,
            base_eval_loss=self._figures.base_eval_loss,
        )


def _keep_trainable(model: torch.nn.Module) -> None:
    """Undo what TRL 1.16 and bitsandbytes 0.50 do to a quantised model, each without a word.

    TRL casts the adapter to bf16: a resumed run drifts. On a CPU with AVX512-BF16, the first evaluation repacks the
    4-bit weights for a kernel without a gradient: from then on nothing is learnt through the layers below.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - torch types every attribute as a Tensor
