"""What happens beside the training loop: stopping and saving in agreement, and telling where it stands."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.contract import CheckpointRef
from finetune_trainer.errors import Interrupted
from finetune_trainer.training.gang import Gang

_WRITE_EVERY_SECONDS: Final = 0.5
_WRITING_SHARE: Final = 0.0005
"""Most of a step's time that may go into writing progress: a slow disk is written to less often."""
_WINDOW: Final = 50
"""Steps over which speed is averaged."""

_ASK_EVERY_BATCHES: Final = 8
"""Batches of an evaluation between two looks at the stop file."""


class Reporter(Protocol):
    """Takes figures of the run to whoever wants to see them."""

    def update(self, **known: Any) -> None: ...


class StopAndSave(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Ends training when any rank has been asked to stop, and saves when time is up, on every rank at the same step."""

    def __init__(self, gang: Gang, stop_file: Path, save_every_seconds: int | None) -> None:
        self._gang = gang
        self._stop_file = stop_file
        self._every = save_every_seconds
        self._saved = time.monotonic()
        self._batches = 0
        self.stopping = False

    def on_step_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        due = self._every is not None and time.monotonic() - self._saved >= self._every
        self.stopping, save = self._gang.any_of(self._stop_file.exists(), due and self._gang.is_main_process)
        if self.stopping:
            control.should_training_stop = True
            control.should_evaluate = False
        control.should_save = control.should_save or save or self.stopping
        # A loss that is not finite is found when it is logged, and must never get into a checkpoint.
        control.should_log = control.should_log or control.should_save
        return control

    def on_epoch_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.stopping:
            control.should_save = control.should_evaluate = False
        return control

    def on_save(self, *_: Any, **__: Any) -> None:
        self._saved = time.monotonic()

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        """Raises Interrupted, on every rank at the same batch."""
        self._batches += 1
        if self._batches % _ASK_EVERY_BATCHES == 0 and any(self._gang.any_of(self._stop_file.exists())):
            self.stopping = True
            raise Interrupted("stopped during an evaluation")


class Stopwatch:
    """Seconds spent in steps, without evaluations and checkpoints, and the speed over the last steps."""

    def __init__(self) -> None:
        self.busy = 0.0
        self.steps = 0
        self.tokens = 0
        self._since = time.monotonic()
        self._points: deque[tuple[int, float, int]] = deque([(0, 0.0, 0)], maxlen=_WINDOW)

    def resume(self) -> None:
        """The next step begins now; what came before was something else."""
        self._since = time.monotonic()

    def step(self) -> None:
        now = time.monotonic()
        self.busy += now - self._since
        self._since = now
        self.steps += 1

    def saw_tokens(self, total: int) -> None:
        self.tokens = total
        self._points.append((self.steps, self.busy, total))

    @property
    def mean_tokens_per_second(self) -> float | None:
        return self.tokens / self.busy if self.busy > 0 and self.tokens else None

    @property
    def tokens_per_second(self) -> float | None:
        (_, then, before), (_, now, after) = self._points[0], self._points[-1]
        return (after - before) / (now - then) if now > then else None

    @property
    def seconds_per_step(self) -> float | None:
        (first, then, _), (last, now, _) = self._points[0], self._points[-1]
        if last > first:
            return (now - then) / (last - first)
        return self.busy / self.steps if self.steps else None


class ProgressCallback(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Keeps the newest figures of the run. With a reporter (rank 0), also writes them, about twice a second."""

    def __init__(
        self, reporter: Reporter | None, checkpoints: Callable[[], tuple[CheckpointRef, ...]], base: float | None
    ) -> None:
        self._reporter = reporter
        self._checkpoints = checkpoints
        self._next_write = 0.0
        self._logs: dict[str, float] = {}
        self.watch = Stopwatch()
        self.eval_loss: float | None = None
        self.base_eval_loss = base

    @property
    def loss(self) -> float | None:
        return self._logs.get("loss")

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self.watch.resume()
        self._write(state, message="training")

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._logs = logs
            self.watch.saw_tokens(int(logs.get("num_tokens", 0)))
            self._write_if_due(state)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.watch.step()

    def on_evaluate(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        loss = (metrics or {}).get("eval_loss")
        if state.global_step == 0:
            self.base_eval_loss = loss
        else:
            self.eval_loss = loss
        self.watch.resume()
        self._write(state)

    def on_save(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self.watch.resume()
        self._write(state, message="training")

    def on_train_end(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self._write(state, message="trained")

    def _write_if_due(self, state: TrainerState) -> None:
        if self._reporter is not None and time.monotonic() >= self._next_write:
            self._write(state)

    def _write(self, state: TrainerState, **also: Any) -> None:
        if self._reporter is None:
            return
        began = time.monotonic()
        pace = self.watch.seconds_per_step
        self._reporter.update(
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=round(float(state.epoch or 0.0), 4),
            eta_seconds=None if pace is None else round(pace * (state.max_steps - state.global_step), 1),
            loss=self.loss,
            eval_loss=self.eval_loss,
            base_eval_loss=self.base_eval_loss,
            learning_rate=self._logs.get("learning_rate"),
            grad_norm=self._logs.get("grad_norm"),
            tokens_per_second=self.watch.tokens_per_second,
            peak_memory_bytes=peak_memory_bytes(),
            checkpoints=self._checkpoints(),
            **also,
        )
        done = time.monotonic()
        self._next_write = done + max(_WRITE_EVERY_SECONDS, (done - began) / _WRITING_SHARE)


def peak_memory_bytes() -> int:
    """Most memory this process has held: of its GPU, or of the host when it trains without one."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
