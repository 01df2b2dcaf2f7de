"""Training data: fetched, checked, tokenised, split and kept in the workspace."""

from __future__ import annotations

from finetune_trainer.data.pipeline import prepare_dataset
from finetune_trainer.data.store import PreparedDataset, load_prepared

__all__ = ["PreparedDataset", "load_prepared", "prepare_dataset"]
