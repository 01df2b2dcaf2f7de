"""The registry of adaptations: a new one is a new file and a line here."""

from __future__ import annotations

from typing import Final

from finetune_trainer.adaptations.base import Adaptation
from finetune_trainer.adaptations.full import Full
from finetune_trainer.adaptations.lora import Lora

ADAPTATIONS: Final[dict[str, Adaptation]] = {adaptation.name: adaptation for adaptation in (Lora(), Full())}
METHODS: Final[dict[str, tuple[str, str]]] = {
    method: (base, adaptation.name)
    for adaptation in ADAPTATIONS.values()
    for method, base in adaptation.methods.items()
}
"""The values of `spec.training.method`, each with the base weights and the adaptation that it stands for."""
