"""The loss of an evaluation is the mean over its tokens, whatever the batches."""

from __future__ import annotations

from typing import Any

import torch

from finetune_trainer.data.encode import IGNORED


class TokenWeightedLoss:
    """Mixin before a `transformers.Trainer` whose loss of a batch is the mean over the batch's learned tokens.

    The trainer averages over batches, each weighted by its rows: an answer of one word counts as much as one of a
    thousand that is evaluated beside it, and the loss changes with the size of the batches.
    """

    accelerator: Any
    args: Any
    _sums: torch.Tensor
    """Loss times tokens, and tokens, of this rank."""

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._sums = torch.zeros(2, dtype=torch.float64)
        output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc] # the trainer's
        total, tokens = self.accelerator.reduce(self._sums.to(self.accelerator.device), reduction="sum").tolist()
        names = [name for name in output.metrics if name.endswith("_loss")]
        if len(names) == 1 and tokens:
            output.metrics[names[0]] = total / tokens
        return output

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        labels = inputs.get("labels")
        loss, *rest = super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc] # the trainer's
        if loss is not None and labels is not None:
            own = own_rows(self.accelerator, len(labels), self.args.per_device_eval_batch_size)
            tokens = int((labels[:own, 1:] != IGNORED).sum())
            if tokens:
                self._sums += torch.tensor([float(loss) * tokens, tokens], dtype=torch.float64)
        return (loss, *rest)


def own_rows(accelerator: Any, rows: int, batch: int) -> int:
    """How many of a batch are this rank's own: the last is filled up from the beginning, so that ranks have as many."""
    state = accelerator.gradient_state
    is_flat = rows == 1 and batch > 1  # without padding, all rows are one
    if is_flat or not state.end_of_dataloader or state.remainder <= 0:
        return rows
    return max(0, min(rows, int(state.remainder) - int(accelerator.process_index) * rows))
