"""A mixin over trainers of transformers and TRL: our checkpoints, and the assumptions they silently make checked."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from finetune_trainer import log
from finetune_trainer.checksums import text_sha256
from finetune_trainer.compatibility import Choice
from finetune_trainer.errors import Diverged, Internal, InvalidConfig
from finetune_trainer.training.callbacks import ProgressCallback
from finetune_trainer.training.checkpoint import CheckpointStore
from finetune_trainer.training.evaluation import TokenWeightedLoss
from finetune_trainer.training.gang import Gang
from finetune_trainer.training.manifest import Facts
from finetune_trainer.training.resume import FIELD, WITHOUT_IT


@dataclass(frozen=True)
class RunFacts:
    """What every checkpoint says of the run that wrote it."""

    run: str
    agrees_on: dict[str, JsonValue] | None


class CheckpointedTrainer(TokenWeightedLoss, Trainer):  # type: ignore[misc] # transformers has no types
    """Differs from the trainer that it is mixed into in six ways, five of them about not losing or spoiling work.

    A checkpoint is put together elsewhere, sealed by a manifest and renamed; the random number states of all ranks
    are gathered, so that only rank 0 writes. A loss or gradient that is not finite ends the run. The model is checked
    to be wrapped as planned. A quantised model stays one that can be trained and resumed. Another job's checkpoint is
    continued with this job's own learning rate. And the loss of an evaluation is the mean over its tokens.
    """

    def __init__(  # noqa: PLR0913 - each is one fact about the run
        self,
        *,
        gang: Gang,
        store: CheckpointStore,
        figures: ProgressCallback,
        choice: Choice,
        facts: RunFacts,
        resume: Facts | None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._gang = gang
        self._store = store
        self._figures = figures
        self._choice = choice
        self._run_facts = facts
        self._resume = resume
        self._writing_to: Path | None = None
        choice.base.ready_to_train(self.model)

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

    def _prepare_for_training(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[torch.nn.Module, Any]:
        if self._resume is not None and self._resume.origin is not None:
            _check_steps(self._resume, max_steps)
        wrapped, dataloader = super()._prepare_for_training(max_steps, *args, **kwargs)
        self._check(wrapped)
        if self.args.world_size != self._gang.size:
            raise Internal(f"world size: planned {self._gang.size}, but the trainer sees {self.args.world_size}")
        return wrapped, dataloader

    def _check(self, wrapped: torch.nn.Module) -> None:
        """What is trained must be what was planned: libraries fall back to something else without a word."""
        choice, found = self._choice, type(wrapped).__name__
        inner = choice.strategy.unwrapped(wrapped)
        if inner is None:
            raise Internal(f"strategy {choice.strategy.name} was planned, but the model is a {found}")
        if not choice.adaptation.is_planned(inner):
            raise Internal(
                f"adaptation {choice.adaptation.name} was planned, but the model is a {type(inner).__name__}"
            )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """After another job's checkpoint, this job's own learning rate, weight decay and so on apply."""
        groups = [dict(group) for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._resume is not None and self._resume.origin is not None:
            apply_own_rates(self.optimizer, self.lr_scheduler, groups)

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
            run=self._run_facts.run,
            agrees_on=self._run_facts.agrees_on,
            shapes=shapes_digest(self.model),
            rng=tuple(f"rng_state_{rank}.pth" for rank in range(size)) if size > 1 else ("rng_state.pth",),
            epoch=self.state.epoch,
            loss=self._figures.loss,
            eval_loss=self._figures.eval_loss,
            base_eval_loss=self._figures.base_eval_loss,
        )


def trainer_of(trainer: type) -> Any:
    """A trainer of transformers or TRL as a CheckpointedTrainer."""
    return type(f"Checkpointed{trainer.__name__}", (CheckpointedTrainer, trainer), {})


def shapes_digest(model: torch.nn.Module) -> str:
    """Over the names and shapes of the parameters that are trained: an optimizer's state fits no others."""
    trained = sorted(f"{name} {tuple(value.shape)}" for name, value in model.named_parameters() if value.requires_grad)
    return text_sha256("\n".join(trained))


def check_shapes(facts: Facts, model: torch.nn.Module) -> None:
    """Raises InvalidConfig when another job's checkpoint was made by training something else."""
    if facts.origin is not None and facts.shapes not in (None, shapes_digest(model)):
        raise InvalidConfig(
            f"cannot go on from checkpoint {facts.origin}: the parameters that are trained have other names or shapes",
            field=FIELD,
            advice=WITHOUT_IT,
        )


def _check_steps(facts: Facts, max_steps: int) -> None:
    if facts.step > max_steps:
        raise InvalidConfig(
            f"cannot go on from checkpoint {facts.origin}: it has done {facts.step} steps, this job has {max_steps}",
            field=FIELD,
            advice="raise num_train_epochs or max_steps in spec.training.trainerConfig, or remove resumeFrom",
        )


def apply_own_rates(optimizer: Any, scheduler: Any, groups: list[dict[str, Any]]) -> None:
    """Give an optimizer whose state was loaded the settings it had before: another job's came with the state."""
    kept = {"params"} if isinstance(scheduler, LambdaLR) else {"params", "lr", "initial_lr"}
    for group, before in zip(optimizer.param_groups, groups, strict=True):
        group.update({key: value for key, value in before.items() if key not in kept})
    if not isinstance(scheduler, LambdaLR):  # its rate is a state, not a function of the step
        log.logger().warning("the learning rate goes on from the other job's", scheduler=type(scheduler).__name__)
        return
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    for group, base, scale in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        group["lr"] = base * scale(scheduler.last_epoch)
