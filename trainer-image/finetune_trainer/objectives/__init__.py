"""The registry of objectives: a new one is a new file and a line here."""

from __future__ import annotations

from typing import Final

from finetune_trainer.objectives.base import Objective
from finetune_trainer.objectives.language_modeling import SelfSupervised, Supervised

OBJECTIVES: Final[dict[str, Objective]] = {objective.name: objective for objective in (Supervised(), SelfSupervised())}
