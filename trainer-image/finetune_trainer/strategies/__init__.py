"""The registry of strategies: a new one is a new file and a line here."""

from __future__ import annotations

from typing import Final

from finetune_trainer.strategies.base import Strategy
from finetune_trainer.strategies.ddp import DDP
from finetune_trainer.strategies.single import Single

STRATEGIES: Final[dict[str, Strategy]] = {strategy.name: strategy for strategy in (Single(), DDP())}
