"""The registry of base weights: a new one is a new file and a line here."""

from __future__ import annotations

from typing import Final

from finetune_trainer.bases.base import BaseWeights
from finetune_trainer.bases.dense import Dense
from finetune_trainer.bases.int8 import Int8
from finetune_trainer.bases.nf4 import NF4

BASES: Final[dict[str, BaseWeights]] = {base.name: base for base in (Dense(), NF4(), Int8())}
